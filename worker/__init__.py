"""The Celery worker: takes what waits, scores it in micro-batches, ends every job exactly once."""
