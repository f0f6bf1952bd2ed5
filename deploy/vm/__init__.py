"""What runs on the VM itself: start at boot, notice of preemption, backups, check of an image."""
