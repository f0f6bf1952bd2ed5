"""A client that does what the API tells clients to do when a part is away: try again."""

import secrets
import time
from typing import Any

import httpx

from contract.messages import FINAL_STATES
from tests.conftest import HANG_S, LIMITS

_PAUSE_S = 0.1


class PatientClient:
    """One keep-alive connection to a service; not shared between threads."""

    def __init__(self, url: str, patience_s: float = HANG_S) -> None:
        """Make a client that gives up `patience_s` seconds after it was made."""
        self.http = httpx.Client(base_url=url, timeout=60, limits=LIMITS)
        self.num_refused = 0
        """Answers 503 and lost connections."""
        self._deadline = time.monotonic() + patience_s

    def __enter__(self) -> "PatientClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def submit(self, fields: dict[str, Any]) -> str:
        """Post a request until it is accepted, all tries as one job; return its task ID."""
        headers = {"Idempotency-Key": secrets.token_hex()}
        body = self.until_served("POST", "/score", json=fields, headers=headers)
        return str(body["id"])

    def ended(self, task_id: str) -> dict[str, Any]:
        """The job once it is in a final state."""
        while True:
            job = self.until_served("GET", f"/score/{task_id}?wait=20")
            if job["state"] in FINAL_STATES:
                return job
            assert time.monotonic() < self._deadline, f"{task_id} has not ended: {job['state']}"

    def until_served(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """The JSON of an answer other than a 503."""
        while True:
            try:
                response = self.http.request(method, path, **request)
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    assert response.is_success, f"{response.status_code}: {response.text}"
                    body: dict[str, Any] = response.json()
                    return body
            except httpx.TransportError:
                pass
            self.num_refused += 1
            assert time.monotonic() < self._deadline, f"{method} {path} was never served"
            time.sleep(_PAUSE_S)
