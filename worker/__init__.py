"""The Celery worker: fetches waiting jobs, scores them in micro-batches, ends each exactly once.

`main` builds it. `queue` brings messages, `scheduling` chooses what is scored next, `scoring`
scores it and ends jobs, `recovery` brings back jobs that no worker holds, and `process` holds the
worker's lease.
"""
