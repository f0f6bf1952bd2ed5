"""Holds what the routes share: waiting, admission, limits and metrics."""
