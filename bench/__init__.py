"""Benchmarks of evascore on this machine; each module measures one thing and writes its results."""
