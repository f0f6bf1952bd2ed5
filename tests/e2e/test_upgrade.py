"""An upgrade and a rollback of `make run`: one release goes on with what the other has left.

The next release is a copy of this one with another version, a newer format of messages and a field
that this release does not know.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

import contract
from contract.messages import VERSION
from contract.settings import REPOSITORY
from tests.conftest import HANG_S, wait_until
from tests.service import Service

NEXT = "99.0.0"
FOLDERS = ("app", "contract", "deploy", "model", "worker")
CHANGES = {
    "contract/__init__.py": (f'"{contract.__version__}"', f'"{NEXT}"'),
    "contract/messages.py": (
        f"VERSION = Version({VERSION.major}, {VERSION.minor})",
        f"VERSION = Version({VERSION.major}, {VERSION.minor + 1})",
    ),
}
FIELD = ('    traceparent: str = ""\n', '    traceparent: str = ""\n    later: str = "unknown"\n')
NUM_LINES = 240
# Ten texts, each again and again: its scores must be the same under both releases.
TEXTS = [f"The text number {number} is here. " * 4 for number in range(10)]
LINES = b"".join(
    orjson.dumps({"custom_id": str(number), "text": TEXTS[number % len(TEXTS)]}) + b"\n"
    for number in range(NUM_LINES)
)


@pytest.fixture(scope="module")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the next release."""
    folder = tmp_path_factory.mktemp("next")
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for path in ("gunicorn.conf.py", "redis.conf"):
        shutil.copy(REPOSITORY / path, folder)
    changes = [*CHANGES.items(), ("contract/messages.py", FIELD)]
    for path, (before, after) in changes:
        code = (folder / path).read_text()
        assert code.count(before) == 1, path
        (folder / path).write_text(code.replace(before, after))
    return folder


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with small micro-batches, so that a batch takes a while."""
    service = Service(tmp_path, micro_batch_bytes=4096, micro_batch_texts=2)
    yield service
    service.stop()


class Work:
    """What clients have sent: one job that has ended, jobs that wait, and a batch in progress."""

    def __init__(self, http: httpx.Client, worker: psutil.Process) -> None:
        """Send it all; wait only for the first job."""
        answer = http.post("/score", params={"wait": 30}, json={"text": TEXTS[0]})
        self.ended = answer.json()
        assert self.ended["state"] == "SUCCESS"
        upload = http.post(
            "/batches", content=LINES, headers={"Content-Type": "application/x-ndjson"}
        )
        assert upload.status_code == 202, upload.text
        self.batch = upload.headers["Location"]
        wait_until(lambda: self.num_completed(http) > 0, HANG_S)
        # So that no machine is fast enough to score everything.
        worker.suspend()
        self.waiting = [
            http.post("/score", json={"text": text, "priority": "bulk"}).json()["links"]["self"]
            for text in TEXTS
        ]
        assert self.num_completed(http) < NUM_LINES
        worker.resume()

    def num_completed(self, http: httpx.Client) -> int:
        """The number of lines of the batch that have a score."""
        return http.get(self.batch).json()["request_counts"]["completed"]

    def check_all_is_scored(self, http: httpx.Client) -> None:
        """Wait for everything; every text has one score, and the same one wherever it stands."""
        scores = [self._score(http, path)["log_likelihood_nats"] for path in self.waiting]
        wait_until(lambda: self.num_completed(http) == NUM_LINES, HANG_S)
        page = http.get(f"{self.batch}/results", params={"limit": 10_000})
        lines = [orjson.loads(line) for line in page.text.splitlines()]
        assert [line["custom_id"] for line in lines] == [str(n) for n in range(NUM_LINES)]
        found = {
            (n % len(TEXTS), line["result"]["log_likelihood_nats"]) for n, line in enumerate(lines)
        }
        # Rounding may depend on the other texts of a micro-batch.
        for number, nats in found:
            assert nats == pytest.approx(scores[number], rel=1e-5)
        assert self._score(http, self.ended["links"]["self"]) == self.ended["result"]

    @staticmethod
    def _score(http: httpx.Client, path: str) -> dict:
        def ended() -> dict | None:
            job = http.get(path, params={"wait": 10}).json()
            return job if job["state"] not in ("QUEUED", "STARTED") else None

        job = wait_until(ended, HANG_S)
        assert job["state"] == "SUCCESS", job
        return job["result"]


def test_upgrade_and_rollback_lose_no_job_and_no_result(service, next_release):
    left: list[Work] = []
    for version, folder in (
        (contract.__version__, REPOSITORY),
        (NEXT, next_release),
        (contract.__version__, REPOSITORY),
    ):
        service.repository = folder
        # `start` waits for the line of this start.
        service.log.write_bytes(b"")
        service.start()
        with service.client() as http:
            assert http.get("/info").json()["service"]["version"] == version
            for work in left:
                work.check_all_is_scored(http)
            stats = http.get("/stats").json()
            assert stats["queue"]["parked"] == 0
            assert stats["dead_letters"]["count"] == 0
            if len(left) < 2:
                left.append(Work(http, service.part("worker")))
        assert service.stop() == 0
