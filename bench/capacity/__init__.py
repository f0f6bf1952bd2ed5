"""A queueing model of workers with micro-batches: plans a fleet, and is checked against runs."""
