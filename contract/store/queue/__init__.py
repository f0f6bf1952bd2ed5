"""Keeps what waits for workers: queues by model, leases, parked messages, dead letters."""
