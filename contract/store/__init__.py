"""Keeps jobs and batches in Redis: atomic Lua scripts and the Celery application."""
