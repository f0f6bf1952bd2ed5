"""Holds what the web tier and the workers share; imports neither Flask nor torch."""
