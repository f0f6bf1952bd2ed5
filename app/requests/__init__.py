"""Turns HTTP requests into checked jobs."""
