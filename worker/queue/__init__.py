"""Connects the scoring loop to the queue: transport, messages, Celery."""
