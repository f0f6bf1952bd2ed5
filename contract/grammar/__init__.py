"""Defines the grammar of requests; every tier can import it, since it needs no torch or Redis."""
