"""The HTTP edge: from a request to a checked job, from a job's record to an answer. No torch."""
