"""Runs operations over HTTP: drivers for threads and for event loops, proxies, certificates."""
