"""Runs LitServe around the model, with micro-batches as large as evascore's."""

import argparse
from typing import Any

import litserve

from bench.peers.costless import make_costless
from model import Scorer, ScoreRequest

# At 0 LitServe looks for requests in a busy loop, which takes a whole core.
BATCH_TIMEOUT_S = 0.005


class ScorerApi(litserve.LitAPI):
    """Scores the texts of one batch together."""

    def __init__(self, model: str, is_costless: bool, max_batch_texts: int) -> None:
        super().__init__(
            max_batch_size=max_batch_texts, batch_timeout=BATCH_TIMEOUT_S, api_path="/score"
        )
        self._model = model
        self._is_costless = is_costless

    def setup(self, device: str) -> None:
        """Load the model, in the process that scores."""
        self._scorer = Scorer.load(self._model, device=device)
        self._scorer.warm_up()
        if self._is_costless:
            make_costless(self._scorer)

    def decode_request(self, request: dict[str, Any], **_: Any) -> ScoreRequest:
        """The text of a JSON body."""
        return ScoreRequest(request["text"].encode())

    def predict(self, batch: list[ScoreRequest], **_: Any) -> list[dict[str, Any]]:
        """The results of a batch."""
        return self._scorer.score(batch)

    def encode_response(self, output: dict[str, Any], **_: Any) -> dict[str, Any]:
        """The JSON of one result."""
        return {"result": output}


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--costless", action="store_true")
    parser.add_argument("--max-batch-texts", type=int, required=True)
    options = parser.parse_args()
    api = ScorerApi(options.model, options.costless, options.max_batch_texts)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
