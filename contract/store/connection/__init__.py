"""Connects to Redis, runs scripts there, and names what fails."""
