"""What the client asks of the service, without I/O: bodies, steps, retries, checks of answers."""
