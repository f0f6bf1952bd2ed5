"""Components that the routes share: submission, waiting, limits and metrics."""
