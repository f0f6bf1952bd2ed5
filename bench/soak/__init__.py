"""Measures whether a service stays flat in memory and quick under hours of mixed load."""
