"""The web tier: turns requests into checked jobs, and records of jobs into answers. No torch."""
