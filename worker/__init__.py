"""The Celery worker: fetches waiting jobs, scores them in micro-batches, ends each exactly once."""
