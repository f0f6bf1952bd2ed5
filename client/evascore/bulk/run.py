"""Scores a file of lines as batches, and resumes a run that was interrupted.

The target holds the results so far; the state file holds what is at the service. Three rules make
a run safe to kill at any time: a line is written when its result has come, the key of an upload is
saved before the upload is sent, and a batch is erased only after its results are on disk. So the
next run loses nothing and scores nothing twice. It uploads again only what the service has lost.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from evascore.bulk.error_kinds import ErrorKind
from evascore.bulk.files import (
    BulkRefused,
    Target,
    Upload,
    at_line,
    halves_of,
    has_score,
    lines_of,
    numbers_of,
    rest_of,
    sha256_of,
)
from evascore.bulk.start import Plan, erase_soon, starting_state
from evascore.errors import BodyTooLarge, JobGone, JobNotFound, ServiceError, ServiceUnreachable
from evascore.operations.api import Operations
from evascore.operations.calls import GZIP, BatchRequest, compressed
from evascore.operations.retrying import Call
from evascore.readers.inputs import Input
from evascore.results import Batch
from evascore.sync import Client
from evascore.wording import counted

# Uploads at the service at once: it scores the next one while the results of one are fetched.
UPLOADS_AT_ONCE = 2
PAGE_LINES = 1000
# After this time without a result a run says what it waits for.
QUIET_S = 5.0
# No time limit here: the service ends a late batch itself, with an error for each line.
NO_LIMIT_S = 1e9


@dataclass(frozen=True, slots=True)
class Summary:
    """Numbers of lines after a run."""

    num_lines: int
    num_failed: int
    num_resumed: int
    """Lines that were in the target when the run started."""
    errors: list[ErrorKind]
    """The errors of lines by kind, the most frequent first."""
    model: str | None
    """The model of all scores, as `name@fingerprint`; None if nothing was scored."""


class ModelChanged(BulkRefused):
    """The service scores the rest of the lines by another model."""


class Bulk:
    """One run; `num_done` of `num_lines` lines are written."""

    def __init__(self, client: Client, plan: Plan, lines: Input, target: Target) -> None:
        """Read the files, and decide whether to start or to resume.

        Args:
            lines: what `plan.source` holds.

        Raises:
            BulkRefused: the files do not belong together, or one would be overwritten.
            OSError: a file cannot be read.
        """
        self._client, self._plan, self._lines, self._target = client, plan, lines, target
        self._version = lines.version()
        self._state = starting_state(client, plan, lines, target)
        self.num_lines = self._state.num_lines
        self._numbers = enumerate(numbers_of(lines))
        self._on_quiet: Callable[[], None] = lambda: None
        self._of_one_model: str | None = None
        """ID of the batch whose model is known to be that of the run."""

    @property
    def num_done(self) -> int:
        """Number of lines that are written."""
        return self._target.num_lines

    def run(
        self, on_progress: Callable[[int], None], on_quiet: Callable[[], None] | None = None
    ) -> Summary:
        """Score all lines that have no result yet.

        Args:
            on_progress: called with the number of lines done.
            on_quiet: called when no result has come for `QUIET_S` seconds.

        Raises:
            ModelChanged: a model scores the next lines that is not that of the lines written.
            EvascoreError, OSError: the run is not complete; start it again to resume.
        """
        num_resumed = self.num_done
        self._on_quiet = on_quiet or self._on_quiet
        self._save()
        for at, upload in enumerate(self._state.uploads):
            if upload.end > self.num_done:
                self._submit(at)
                self._submit_ahead(at + 1, at + UPLOADS_AT_ONCE)
                self._fetch(at, on_progress)
            if not self._state.uploads[at].is_finished:
                self._finish(self._state.uploads[at])
        target, model = self._target, self._state.model
        return Summary(self.num_done, target.num_failed, num_resumed, target.errors.kinds(), model)

    def _submit(self, at: int) -> None:
        """Send an upload unless it is at the service already; halve one that is too large for it.

        How large it may be depends on the settings of the service, its Redis and the outputs.
        """
        while (upload := self._state.uploads[at]).batch_id is None:
            try:
                batch = self._client.submit_batch(
                    self._request(upload), idempotency_key=upload.key, timeout_s=NO_LIMIT_S
                )
            except BodyTooLarge:
                if upload.num_lines == 1:
                    raise
                self._halve(at)
            else:
                self._keep_id(upload, batch)

    def _halve(self, at: int) -> None:
        uploads = self._state.uploads
        uploads[at : at + 1] = halves_of(self._lines, uploads[at])
        self._save()

    def _submit_ahead(self, begin: int, end: int) -> None:
        """Send uploads before their turn, if the service takes them now.

        A refusal ends the run only in an upload's own turn. Else a quota or a full queue would end
        it before it has fetched results that are ready.
        """
        for upload in self._state.uploads[begin:end]:
            if upload.batch_id is None:
                # Circuit breakers of its own: its refusal does not hold up other requests.
                steps = Operations(self._client.model).submit_batch(
                    self._request(upload), Call.begin(NO_LIMIT_S, patience_s=0), key=upload.key
                )
                with suppress(ServiceError, ServiceUnreachable):
                    self._keep_id(upload, self._client.run(steps))

    def _keep_id(self, upload: Upload, batch: Batch) -> None:
        if batch.request_counts.total != upload.num_lines or self._has_changed():
            self._client.erase_batch(batch)
            raise self._changed()
        upload.batch_id = batch.id
        self._save()

    def _request(self, upload: Upload) -> BatchRequest:
        def body() -> Iterator[bytes]:
            return compressed(lines_of(self._lines, upload))

        return BatchRequest(body, self._state.options, GZIP)

    def _fetch(self, at: int, on_progress: Callable[[int], None]) -> None:
        """Write the results of an upload as they come; send again what the service has lost."""
        while self._state.uploads[at].end > self.num_done:
            num_before = self.num_done
            try:
                self._follow(at, on_progress)
            except (JobGone, JobNotFound):
                self._replace(at)
                self._submit(at)
                continue
            if self.num_done == num_before:
                raise BulkRefused(
                    f"The service has no result for line {num_before + 1}, though its batch has"
                    " ended; report this as a bug of the service."
                )

    def _follow(self, at: int, on_progress: Callable[[int], None]) -> None:
        upload = self._state.uploads[at]
        assert upload.batch_id is not None
        pages = self._client.batch_pages(
            upload.batch_id,
            after=self.num_done - upload.first,
            limit=PAGE_LINES,
            timeout_s=NO_LIMIT_S,
            quiet_s=QUIET_S,
        )
        for lines in pages:
            if not lines:
                self._on_quiet()
                continue
            if has_score(lines):
                self._check_model(at, upload.batch_id)
            self._target.append(self._placed(lines), upload.first)
            on_progress(self.num_done)

    def _check_model(self, at: int, batch_id: str) -> None:
        """Check that the scores of a batch, which are not written yet, are of the run's model.

        A batch has one model, which it names from its first score on. The state of a run that
        release 0.1 began names none; then the model of the next scores is taken.
        """
        if batch_id == self._of_one_model:
            return
        model = self._client.batch(batch_id, timeout_s=NO_LIMIT_S).model or {}
        if "fingerprint" not in model:
            return
        exact = f"{model['name']}@{model['fingerprint']}"
        if self._state.model is None:
            self._state.model = exact
            self._save()
        elif _fingerprint(self._state.model) != model["fingerprint"]:
            self._withdraw(at)
            raise ModelChanged(
                f"The first {counted(self.num_done, 'result')} are of the model"
                f" {self._state.model}, and the next ones would be of {exact}. None of these was"
                " written."
            )
        self._of_one_model = batch_id

    def _withdraw(self, begin: int) -> None:
        """Forget what is at the service of these and later uploads, so that it is sent again."""
        uploads = self._state.uploads
        if not self._plan.keep:
            erase_soon(self._client, uploads[begin:])
        for at, upload in enumerate(uploads[begin:], begin):
            uploads[at] = rest_of(self._lines, upload, max(self.num_done, upload.first))
        self._save()

    def _placed(self, results: list[bytes]) -> list[bytes]:
        """The next results; line numbers in their errors become those of the input."""
        return [
            at_line(result, partial(self._number_of, index))
            for index, result in enumerate(results, self.num_done)
        ]

    def _number_of(self, index: int) -> int:
        """The line number in the input of a line; must be called with growing indexes."""
        for at, number in self._numbers:
            if at == index:
                return number
        raise self._changed()

    def _has_changed(self) -> bool:
        """Whether the input holds other lines than at the start of the run."""
        version = self._lines.version()
        if version == self._version:
            return False
        self._version = version
        return sha256_of(self._lines, self._state.num_bytes) != self._state.input_sha256

    def _changed(self) -> BulkRefused:
        return BulkRefused(
            f"{self._plan.source} changed while it was read. Start again with --overwrite, and"
            " leave the file unchanged during the run."
        )

    def _replace(self, at: int) -> None:
        uploads = self._state.uploads
        uploads[at] = rest_of(self._lines, uploads[at], self.num_done)
        self._save()

    def _finish(self, upload: Upload) -> None:
        """Erase a batch from the service after its results are on disk."""
        self._target.sync()
        if upload.batch_id is not None and not self._plan.keep:
            # The key or the service may be another one than when the batch was uploaded.
            with suppress(JobNotFound):
                self._client.erase_batch(upload.batch_id)
        upload.is_finished = True
        self._save()

    def give_up(self) -> None:
        """Erase from the service what is left of a run that nobody can resume."""
        if not self._plan.keep:
            erase_soon(self._client, self._state.uploads)

    def _save(self) -> None:
        self._state.save(self._plan.state_path)


def _fingerprint(model: str) -> str:
    return model.rpartition("@")[2]
