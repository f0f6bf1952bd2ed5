"""Finds, downloads, quantizes, caches and loads checkpoints."""
