"""Stores batches and files, and queues the parts of batches."""
