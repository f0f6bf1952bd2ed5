"""Puts a load on a service, and measures and draws what comes back."""
