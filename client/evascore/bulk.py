"""Scores a file of lines as batches, and goes on where it was when it is started again.

What is done is what stands in the target; the state file tells what is at the service. A line is
written once its result has come, an upload carries a key that was saved before it was sent, and a
batch is erased only when its lines are safe: so whenever a run is killed, the next one loses and
repeats nothing. Only what the service itself has lost is uploaded again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evascore.bulk_files import (
    BulkRefused,
    Format,
    State,
    Target,
    Upload,
    at_line,
    lines_of,
    numbers_of,
    planned,
    rest_of,
)
from evascore.calls import GZIP, BatchRequest, compressed
from evascore.errors import JobGone, JobNotFound
from evascore.sync import Client

# Uploads at the service at a time: it works on the next while the last lines of one are fetched.
UPLOADS_AT_ONCE = 2
PAGE_LINES = 1000
# The service itself ends a batch that takes longer, and then tells so of every line.
NO_LIMIT_S = 1e9


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a run."""

    source: Path
    target: Path
    form: Format
    options: dict[str, str]
    """Of the query of `POST /batches`."""
    resume: bool = False
    overwrite: bool = False
    keep: bool = False
    """Whether the service keeps the batches when they are done."""

    @property
    def state_path(self) -> Path:
        """Where the run keeps what it must know to go on."""
        return self.target.with_name(self.target.name + ".state")


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run."""

    num_lines: int
    num_failed: int
    num_resumed: int
    """Lines that were there when it began."""


class Bulk:
    """One run; `num_lines` and `num_done` tell how far it is."""

    def __init__(self, client: Client, plan: Plan, target: Target) -> None:
        """Look at the files, and decide whether to begin or to go on.

        Raises:
            BulkRefused: they do not fit each other, or would be overwritten.
            OSError
        """
        self._client, self._plan, self._target = client, plan, target
        self._state = _state(plan, target)
        self.num_lines = self._state.num_lines
        self._numbers = enumerate(numbers_of(plan.source, plan.form))

    @property
    def num_done(self) -> int:
        """Lines that are written."""
        return self._target.num_lines

    def run(self, on_progress: Callable[[int], None]) -> Summary:
        """Score all lines that are not done.

        Raises:
            EvascoreError, OSError: it is not complete; run it again.
        """
        num_resumed = self.num_done
        self._save()
        for at, upload in enumerate(self._state.uploads):
            if upload.end > self.num_done:
                self._submit(at, at + UPLOADS_AT_ONCE)
                self._fetch(at, on_progress)
            if not self._state.uploads[at].is_finished:
                self._finish(self._state.uploads[at])
        return Summary(self.num_done, self._target.num_failed, num_resumed)

    def _submit(self, begin: int, end: int) -> None:
        """Upload what of these is not at the service yet."""
        for upload in self._state.uploads[begin:end]:
            if upload.batch_id is None:
                batch = self._client.submit_batch(
                    self._request(upload), idempotency_key=upload.key, timeout_s=NO_LIMIT_S
                )
                if batch.request_counts.total != upload.num_lines:
                    self._client.erase_batch(batch)
                    raise BulkRefused(f"{self._plan.source} changed while it was read")
                upload.batch_id = batch.id
                self._save()

    def _request(self, upload: Upload) -> BatchRequest:
        plan = self._plan

        def body() -> Iterator[bytes]:
            return compressed(lines_of(plan.source, plan.form, upload))

        return BatchRequest(body, plan.options, GZIP)

    def _fetch(self, at: int, on_progress: Callable[[int], None]) -> None:
        """Write the results of an upload as they come; what the service has lost comes again."""
        while (upload := self._state.uploads[at]).end > self.num_done:
            num_before = self.num_done
            try:
                self._follow(upload, on_progress)
            except (JobGone, JobNotFound):
                self._replace(at)
                self._submit(at, at + 1)
                continue
            if self.num_done == num_before:
                raise BulkRefused(f"the service has no result for line {num_before + 1}")

    def _follow(self, upload: Upload, on_progress: Callable[[int], None]) -> None:
        assert upload.batch_id is not None
        pages = self._client.batch_pages(
            upload.batch_id,
            after=self.num_done - upload.first,
            limit=PAGE_LINES,
            timeout_s=NO_LIMIT_S,
        )
        for lines in pages:
            self._target.append(self._placed(lines), upload.first)
            on_progress(self.num_done)

    def _placed(self, results: list[bytes]) -> list[bytes]:
        """The next results; what names a line of its upload then names that of the input."""
        return [
            at_line(result, partial(self._number_of, index))
            for index, result in enumerate(results, self.num_done)
        ]

    def _number_of(self, index: int) -> int:
        """Where a line stands in the input; asked for in their order."""
        for at, number in self._numbers:
            if at == index:
                return number
        raise BulkRefused(f"{self._plan.source} changed while it was read")

    def _replace(self, at: int) -> None:
        plan, uploads = self._plan, self._state.uploads
        uploads[at] = rest_of(plan.source, plan.form, uploads[at], self.num_done)
        self._save()

    def _finish(self, upload: Upload) -> None:
        """Let the service forget a batch whose results are safe."""
        self._target.sync()
        if upload.batch_id is not None and not self._plan.keep:
            self._client.erase_batch(upload.batch_id)
        upload.is_finished = True
        self._save()

    def _save(self) -> None:
        self._state.save(self._plan.state_path)


def check_paths(plan: Plan) -> None:
    """Make sure that the input can be read, again and again, and that the output may be written.

    Raises:
        BulkRefused, OSError
    """
    with plan.source.open("rb"):
        pass
    for path in (plan.source, plan.target):
        if path.exists() and not path.is_file():
            raise BulkRefused(f"{path} is no regular file; it is read more than once")
    if plan.target.exists() and plan.target.samefile(plan.source):
        raise BulkRefused(f"{plan.target} is the input too")
    has_content = plan.target.exists() and plan.target.stat().st_size > 0
    if has_content and not (plan.overwrite or plan.state_path.exists()):
        raise BulkRefused(
            f"{plan.target} is not empty, and {plan.state_path} is missing; --overwrite begins anew"
        )


def _state(plan: Plan, target: Target) -> State:
    """The state to begin or to go on with."""
    fresh = planned(plan.source, plan.form, plan.options)
    if plan.overwrite or not plan.state_path.exists():
        target.clear()
        return fresh
    if not plan.resume:
        raise BulkRefused(
            f"{plan.target} was begun before: --resume goes on, --overwrite begins anew"
        )
    state = State.load(plan.state_path)
    if state.input_sha256 != fresh.input_sha256:
        raise BulkRefused(f"{plan.source} has changed since {plan.target} was begun")
    if (state.format, state.options) != (plan.form, plan.options):
        raise BulkRefused(f"{plan.target} was begun with other options; give the same again")
    return state
