"""Scores micro-batches of open jobs, and writes how each job ended."""
