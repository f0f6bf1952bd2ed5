"""Scores a file of lines as batches, and writes the results in the form that was asked for."""
