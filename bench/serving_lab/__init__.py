"""Shows what a course on serving teaches: queues, micro-batches, workers (docs/serving-lab.md)."""
