"""Turns records into JSON answers, and errors into problem objects."""
