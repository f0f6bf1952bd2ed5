"""Measurements of a whole evascore on this machine; each module is one and writes its results."""
