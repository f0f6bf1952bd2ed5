"""Runs `python -m model`: scores lines of JSON, predicts what follows lines of text."""
