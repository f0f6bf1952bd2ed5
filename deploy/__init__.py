"""Starts evascore on one machine, deploys it to VMs and clusters, and backs up its data."""
