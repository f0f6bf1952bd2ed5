"""Collects the metrics of `GET /metrics`: requests of this process, and the state in Redis."""
