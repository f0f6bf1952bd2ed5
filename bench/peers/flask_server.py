"""Answers `POST /score` with an empty JSON object: the least that Flask under Gunicorn costs."""

from flask import Flask, request

app = Flask("empty")


@app.post("/score")
def score() -> dict[str, str]:
    """Read the body and answer."""
    request.get_data()
    return {}
