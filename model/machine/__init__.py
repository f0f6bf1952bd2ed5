"""Configures the CPU, finds the device and measures its memory."""
