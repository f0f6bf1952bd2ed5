"""Runs on the VM itself: starts at boot, watches for preemption, backs up, checks images."""
