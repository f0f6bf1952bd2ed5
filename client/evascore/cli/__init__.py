"""Implements the command `evascore`, one module for each subcommand."""
