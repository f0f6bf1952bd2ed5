"""Stores jobs: submits, reads, opens and ends them."""
