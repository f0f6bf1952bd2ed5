"""Holds what the Triton kernels of all linear layers share: tiles, and the steps of a kernel."""
