"""Turns records into JSON and errors into problem objects."""
