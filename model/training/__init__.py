"""Trains the bundled demo checkpoint: corpus, train, export and evaluate, in that order."""
