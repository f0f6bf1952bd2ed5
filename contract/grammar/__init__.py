"""Says what a request may hold. Free of torch and Redis, so that every tier imports it."""
