"""Keeps jobs and batches in Redis, by atomic Lua scripts, and connects to Redis and Celery."""
