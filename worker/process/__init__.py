"""What a worker process knows of itself: its start, lease, model, and how the last one ended."""
