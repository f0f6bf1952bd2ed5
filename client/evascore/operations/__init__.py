"""Builds the client's requests, decides on retries and checks the answers, without I/O."""
