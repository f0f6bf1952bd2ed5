"""Two releases for tests of upgrades, and work that one of them leaves to the other.

The next release is a copy of this one with another version, a newer format of messages and a field
that this release does not know.
"""

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import orjson
import pytest

import contract
from contract.messages import VERSION
from contract.settings import REPOSITORY
from tests.conftest import HANG_S, wait_until

THIS = contract.__version__
NEXT = "99.0.0"
_CHANGES = (
    ("contract/__init__.py", f'"{THIS}"', f'"{NEXT}"'),
    (
        "contract/messages.py",
        f"VERSION = Version({VERSION.major}, {VERSION.minor})",
        f"VERSION = Version({VERSION.major}, {VERSION.minor + 1})",
    ),
    (
        "contract/messages.py",
        '    traceparent: str = ""\n',
        '    traceparent: str = ""\n    later: str = "unknown"\n',
    ),
)
# Ten texts, each again and again: its scores must be the same under both releases.
TEXTS = [f"The text number {number} is here. " for number in range(10)]


def make_next(folder: Path) -> None:
    """Change a copy of this release into the next one."""
    for path, before, after in _CHANGES:
        code = (folder / path).read_text()
        assert code.count(before) == 1, path
        (folder / path).write_text(code.replace(before, after))


def copy_repository(folder: Path) -> None:
    """Copy the files of this release, without its history."""
    listed = _git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        # git still lists a file whose deletion is not committed.
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((REPOSITORY / name).read_bytes())
            (folder / name).chmod((REPOSITORY / name).stat().st_mode)


def make_repository(folder: Path) -> None:
    """Make a git repository with a tag for each release; this one is checked out."""
    copy_repository(folder)
    _git(folder, "init", "--quiet")
    for version in (THIS, NEXT):
        if version == NEXT:
            make_next(folder)
        _git(folder, "add", "--all")
        author = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        _git(folder, *author, "commit", "--quiet", "--no-verify", "--message", version)
        _git(folder, "tag", f"v{version}")
    _git(folder, "checkout", "--quiet", f"v{THIS}")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


class Work:
    """What clients have sent: one job that has ended, jobs that wait, and a batch in progress."""

    num_jobs = 1 + len(TEXTS)

    def __init__(
        self, http: httpx.Client, still: AbstractContextManager[object], num_lines: int = 240
    ) -> None:
        """Send it all; wait only for the first job.

        Args:
            still: while it is entered, no worker scores.
            num_lines: of the batch.
        """
        self._num_lines = num_lines
        lines = b"".join(
            orjson.dumps({"custom_id": str(number), "text": TEXTS[number % len(TEXTS)]}) + b"\n"
            for number in range(num_lines)
        )
        answer = http.post("/score", params={"wait": 30}, json={"text": TEXTS[0]})
        self.ended = answer.json()
        assert self.ended["state"] == "SUCCESS"
        upload = http.post(
            "/batches", content=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        assert upload.status_code == 202, upload.text
        self.batch = upload.headers["Location"]
        wait_until(lambda: self.num_completed(http) > 0, HANG_S)
        # So that no machine is fast enough to score these. On a busy one the batch may be complete.
        with still:
            self.waiting = [
                http.post("/score", json={"text": text, "priority": "bulk"}).json()["links"]["self"]
                for text in TEXTS
            ]

    def num_completed(self, http: httpx.Client) -> int:
        """The number of lines of the batch that have a score."""
        return http.get(self.batch).json()["request_counts"]["completed"]

    def check_all_is_scored(self, http: httpx.Client) -> None:
        """Wait for everything; every text has one score, and the same one wherever it stands."""
        scores = [self._score(http, path)["log_likelihood_nats"] for path in self.waiting]
        wait_until(lambda: self.num_completed(http) == self._num_lines, HANG_S)
        page = http.get(f"{self.batch}/results", params={"limit": 10_000})
        lines = [orjson.loads(line) for line in page.text.splitlines()]
        assert [line["custom_id"] for line in lines] == [str(n) for n in range(self._num_lines)]
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
