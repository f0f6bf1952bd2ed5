"""The command line; it presents what the package does, and decides nothing that is not its own."""
