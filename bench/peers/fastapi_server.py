"""Runs FastAPI around the model, which scores one text at a time."""

import argparse
import threading
from typing import Any

import fastapi
import pydantic
import torch
import uvicorn

from bench.peers.costless import make_costless
from model import Scorer, ScoreRequest


class Body(pydantic.BaseModel):
    """The JSON body of a request."""

    text: str


def create_app(scorer: Scorer) -> fastapi.FastAPI:
    """The application; FastAPI runs the route in a thread of its pool."""
    app = fastapi.FastAPI()
    lock = threading.Lock()

    @app.post("/score")
    def score(body: Body) -> dict[str, Any]:
        with lock:
            [result] = scorer.score([ScoreRequest(body.text.encode())])
        return {"result": result}

    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--costless", action="store_true")
    parser.add_argument("--threads", type=int, help="of the model; by default one per core")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    scorer = Scorer.load(options.model)
    scorer.warm_up()
    if options.costless:
        make_costless(scorer)
    uvicorn.run(create_app(scorer), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
