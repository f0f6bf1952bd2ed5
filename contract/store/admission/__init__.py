"""Admits jobs and batches: the memory of Redis, quotas and shares, and the outcomes."""
