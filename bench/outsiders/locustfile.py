"""Loads a running service with locust, a third-party load generator.

    make run                                # in one terminal
    make locust USERS=16 SECONDS=30         # in another one

It imports nothing of evascore and knows the HTTP API alone, so that its figures do not depend on
our client. Each user sends one text at a time and waits for its score. Under the type TEXT locust
lists the time from a POST to the score; the other rows are single HTTP requests. An API key comes
from EVASCORE_API_KEY, as for the command line.
"""

import os
import random
import time
from typing import Any

from locust import HttpUser, between, task

WORDS = (
    "the of and to in is that for it as was with be by on not he this are or his from at which but "
    "have an had they you were their one all we can her has there been if more when will would who "
    "so no said what up its about into than them only other time new some could these two may then"
)
MIN_WORDS, MAX_WORDS = 4, 40
# The service holds a request for so long; then the user asks again.
WAIT_S = 30
ANSWER_LIMIT_S = 300


class Reader(HttpUser):
    """Somebody who scores one text after the other."""

    wait_time = between(0, 0)

    def on_start(self) -> None:
        """Send the API key, if there is one, with every request."""
        key = os.environ.get("EVASCORE_API_KEY")
        if key:
            self.client.headers["Authorization"] = f"Bearer {key}"

    @task
    def score(self) -> None:
        """Send a text and wait until its score is there."""
        length = random.randint(MIN_WORDS, MAX_WORDS)
        text = " ".join(random.choices(WORDS.split(), k=length))
        began = time.perf_counter()
        answer = self._asked("POST", f"/score?wait={WAIT_S}", "POST /score", json={"text": text})
        while answer and answer.get("state") in ("QUEUED", "STARTED"):
            if time.perf_counter() - began > ANSWER_LIMIT_S:
                break
            path = f"{answer['links']['self']}?wait={WAIT_S}"
            answer = self._asked("GET", path, "GET /score/{task_id}")
        self._report(began, answer or {})

    def _asked(self, method: str, path: str, name: str, **fields: Any) -> dict[str, Any] | None:
        """The JSON of an answer; None for an error, which locust counts."""
        with self.client.request(
            method, path, name=name, catch_response=True, **fields
        ) as response:
            if response.status_code not in (200, 202):
                response.failure(f"status {response.status_code}")
                return None
            found: dict[str, Any] = response.json()
            return found

    def _report(self, began: float, answer: dict[str, Any]) -> None:
        """Count a text: its time, and whether the answer has a score."""
        has_score = answer.get("state") == "SUCCESS" and "log_likelihood_nats" in answer["result"]
        self.environment.events.request.fire(
            request_type="TEXT",
            name="from POST to score",
            response_time=(time.perf_counter() - began) * 1000,
            response_length=0,
            exception=None if has_score else RuntimeError("no score"),
        )
