"""Holds what the web tier and the workers share; imports neither Flask nor torch."""

# The version of the service. Other places read it from here or are compared with it by a test.
__version__ = "0.1.0"
