"""Adapts Gunicorn and logs each request."""
