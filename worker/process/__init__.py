"""Keeps the state of a worker process: its start, lease and model, and how the last one ended."""
