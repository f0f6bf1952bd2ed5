"""Starts evascore on one machine, and deploys it to VMs, clusters and backups."""
