"""Turns requests into forward passes, and hidden states into results."""
