"""Recovers jobs that no worker holds: of dead workers, orphans, overdue and parked ones."""
