"""Answers `POST /score` without scoring: the least that Flask under Gunicorn costs."""

from flask import Flask, request

app = Flask("empty")


@app.post("/score")
def score() -> dict[str, None]:
    """Read the body and answer."""
    request.get_data()
    return {"result": None}
