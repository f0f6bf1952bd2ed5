"""Looks after what nobody has in hand: jobs of dead workers, orphans, overdue and parked jobs."""
