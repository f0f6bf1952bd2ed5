"""Implements the commands of `python -m model`: `score` and `next-chars`."""
