"""Measures and configures the CPU, the device and its memory."""
