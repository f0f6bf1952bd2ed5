"""What the web tier and the workers agree on; knows neither Flask nor torch."""
