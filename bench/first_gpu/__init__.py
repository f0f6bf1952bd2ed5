"""Measures everything about a GPU machine in its first eight minutes; README.md says how."""
