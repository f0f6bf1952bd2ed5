"""Defines the asynchronous client, `AsyncClient`; `sync.py` is generated from this module."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal, TypeVar, overload

import httpx

from evascore import results
from evascore.errors import EvascoreError
from evascore.http import transport
from evascore.http.async_driver import AsyncDriver
from evascore.notebook.progress import Progress, reported
from evascore.operations.api import Operations
from evascore.operations.calls import BatchLines, batch_request, job_fields, json_line, score_fields
from evascore.operations.grouping import Errors, Group, check_errors, groups, yielded
from evascore.operations.retrying import Call
from evascore.operations.steps import Steps
from evascore.results import Batch, Info, Job, Line, Score, id_of, line
from evascore.texts import Text, as_text, listed

T = TypeVar("T")


class AsyncClient:
    """Talks to one service; each event loop has its own connections.

    A request is retried when it got no answer or one of 429, 502, 503 and 504. The pause is the
    `Retry-After` of the service, or a random time that grows. Retries end after `patience_s`
    seconds in which no request succeeds, and after `timeout_s` seconds in all. Each submission
    carries an Idempotency-Key, so a retry is never scored twice.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 300,
        patience_s: float = 30,
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
        on_wait: Callable[[str], None] | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Prepare the client; the first call connects.

        Args:
            url: URL of the service; may hold a name and a password for a proxy in front of it,
                but not together with an API key: both are sent as the header Authorization.
                None: that of the variable EVASCORE_URL, or http://127.0.0.1:8000.
            api_key: key that the operator gave; None: that of the variable EVASCORE_API_KEY.
            timeout_s: seconds that a call may take, unless its own `timeout_s` says otherwise.
            patience_s: seconds to retry while the service is unreachable or has no room.
            model: name of the model that scores, or `name@fingerprint`; None: the default one of
                the service. A call may name another with the option `model`.
            headers: headers of every request, for example for a proxy that checks who sends.
                Those named `Proxy-...` go to the proxy of the shell's variables alone.
            on_wait: called with the reason when a request failed and is sent again after a pause;
                it must return at once. Pickles do not hold it.
            http: the httpx client to send with; it chooses the proxy and the certificates itself.

        Raises:
            UrlInvalid: `url` is not an http or https URL.
            KeyInvalid, HeaderInvalid: `api_key` or a header cannot be sent, or not with this URL.
            NetworkInvalid: a variable of the shell names a proxy or certificates in a wrong way.
        """
        self.url = transport.base_url(url)
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self.model = model
        self._operations = Operations(model)
        self._driver = AsyncDriver(
            self.url, http, transport.client_headers(self.url, api_key, headers), on_wait
        )
        self._unpicklable = transport.kept_from_pickles(self.url, api_key, headers, http)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings; what is restored has its own connections.

        Raises:
            TypeError: it has secrets or an httpx client of its own.
        """
        if self._unpicklable:
            raise TypeError(
                f"A client is not pickled with {self._unpicklable}; make the client in the process"
                " that uses it. There, EVASCORE_API_KEY may hold the key."
            )
        remake = partial(
            type(self),
            str(self.url),
            timeout_s=self.timeout_s,
            patience_s=self.patience_s,
            model=self.model,
        )
        return remake, ()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._driver.close()

    # --- scores -------------------------------------------------------------------------------

    async def score(
        self,
        text: str | bytes | Text,
        *,
        context: str | bytes | None = None,
        outputs: Sequence[str] | None = None,
        top_k: int | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Score:
        """Score one text.

        Args:
            context: text before the scored text; the model reads it, but it is not scored.
            outputs: results besides the summary: `bytes`, `top_k`, `curvature`.
            top_k: number of likeliest bytes that the output `top_k` lists at each position.
            options: further fields of the API, such as `model`, `next_chars` or `priority`.

        Raises:
            ServiceError: the service refused the text, or scoring failed; see the subclass.
            ServiceUnreachable: no request was answered within `patience_s`.
            TimedOut: the score did not come within `timeout_s`; the job was cancelled.
        """
        fields = score_fields(text, context, outputs, top_k, options)
        job = await self.run(self._operations.complete(fields, self._call(timeout_s), key=None))
        return results.with_text(job.score(), as_text(text).text)

    async def score_continuations(
        self,
        context: str | bytes,
        continuations: Sequence[str | bytes],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> list[Score]:
        """Score several continuations of one context, in their order; the context is read once.

        Raises:
            ServiceError, ServiceUnreachable, TimedOut: as `score` does.
        """
        fields = job_fields(context=context, continuations=continuations, **options)
        job = await self.run(self._operations.complete(fields, self._call(timeout_s), key=None))
        return job.continuations()

    @overload
    def score_many(
        self,
        texts: Iterable[str | bytes | Text],
        *,
        errors: Literal["raise"] = "raise",
        concurrency: int = 4,
        progress: Progress = None,
        model: str | None = None,
        timeout_s: float | None = None,
        **asked: Any,
    ) -> AsyncIterator[Score]: ...

    @overload
    def score_many(
        self,
        texts: Iterable[str | bytes | Text],
        *,
        errors: Errors,
        concurrency: int = 4,
        progress: Progress = None,
        model: str | None = None,
        timeout_s: float | None = None,
        **asked: Any,
    ) -> AsyncIterator[Score | EvascoreError]: ...

    def score_many(
        self,
        texts: Iterable[str | bytes | Text],
        *,
        errors: Errors = "raise",
        concurrency: int = 4,
        progress: Progress = None,
        model: str | None = None,
        timeout_s: float | None = None,
        **asked: Any,
    ) -> AsyncIterator[Score | EvascoreError]:
        """Score many texts and yield the scores in order; reads `texts` only as needed.

        Args:
            errors: `"raise"` raises the first error, whose message names the text by its index;
                `"return"` yields each in its text's place.
            concurrency: number of requests at once, each of up to 32 texts.
            progress: called with the number of texts done so far; True shows a bar of tqdm.
            model: the model that scores; None: that of this client.
            timeout_s: seconds that each request may take.
            asked: `context`, `outputs`, `top_k` and `options` of texts that are not `Text`.

        Raises:
            TypeError: `texts` is a single text or a table. A value in it that is no text, as None
                or NaN, is a `NotText`, which stands in its place like any other error.
        """
        check_errors(errors)

        def begin(group: Group) -> Steps[list[Score | EvascoreError]]:
            return self._operations.outcomes(group, self._call(timeout_s), model)

        outcomes = self._driver.in_order(begin, groups(listed(texts, "texts"), asked), concurrency)
        return self._one_by_one(outcomes, errors, reported(progress, texts))

    async def _one_by_one(
        self,
        groups_of_outcomes: AsyncIterator[list[Score | EvascoreError]],
        errors: Errors,
        reporting: AbstractContextManager[Callable[[int], None]],
    ) -> AsyncIterator[Score | EvascoreError]:
        """Yield the outcomes one by one, and report their number to `progress`."""
        num_done = 0
        with reporting as report:
            async for outcomes in groups_of_outcomes:
                first, num_done = num_done, num_done + len(outcomes)
                report(num_done)
                for outcome in yielded(outcomes, errors, first):
                    yield outcome

    # --- jobs ---------------------------------------------------------------------------------

    async def submit(
        self,
        *texts: str | bytes | Text,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Job:
        """Submit a job of one or more texts and return without waiting for its result.

        Args:
            idempotency_key: the same key with the same texts gives the same job; None: random.
            options: further fields of the request, such as `model` or `priority`.

        Raises:
            ServiceError, ServiceUnreachable: the job was not accepted.
        """
        fields, call = job_fields(*texts, **options), self._call(timeout_s)
        return await self.run(self._operations.submit(fields, call, key=idempotency_key))

    async def wait(self, job: Job | str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job has ended, and return it.

        Raises:
            TimedOut: the job has not ended; it goes on, and you may wait again.
            ServiceError, ServiceUnreachable: the job could not be read.
        """
        return await self.run(self._operations.wait(id_of(job), self._call(timeout_s)))

    async def job(self, job: Job | str, *, timeout_s: float | None = None) -> Job:
        """Read a job as it is now."""
        return await self.run(self._operations.read(id_of(job), self._call(timeout_s)))

    async def cancel(self, job: Job | str, *, timeout_s: float | None = None) -> Job:
        """Cancel a job that has not ended.

        Raises:
            JobEnded: the job has already ended.
        """
        return await self.run(self._operations.cancel(id_of(job), self._call(timeout_s)))

    async def erase(self, job: Job | str, *, timeout_s: float | None = None) -> None:
        """Delete the text and the result of a job, whatever its state."""
        await self.run(self._operations.erase(id_of(job), self._call(timeout_s)))

    # --- batches ------------------------------------------------------------------------------

    async def submit_batch(
        self,
        lines: BatchLines,
        *,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Batch:
        """Upload a batch as a compressed stream.

        Args:
            lines: the path of an NDJSON file, or a sequence of texts.
            idempotency_key: the same key with the same lines gives the same batch; None: random.
            options: query parameters: `on_error`, `outputs`, `top_k`, `deadline_s`, `model`.

        Raises:
            ServiceError, ServiceUnreachable: the batch was not accepted.
        """
        request, call = batch_request(lines, options), self._call(timeout_s)
        return await self.run(self._operations.submit_batch(request, call, key=idempotency_key))

    async def batch(self, batch: Batch | str, *, timeout_s: float | None = None) -> Batch:
        """Read a batch as it is now."""
        return await self.run(self._operations.read_batch(id_of(batch), self._call(timeout_s)))

    async def wait_batch(self, batch: Batch | str, *, timeout_s: float | None = None) -> Batch:
        """Wait until a batch has ended, and return it.

        Raises:
            TimedOut: the batch has not ended; it goes on, and you may wait again.
        """
        return await self.run(self._operations.wait_batch(id_of(batch), self._call(timeout_s)))

    async def cancel_batch(self, batch: Batch | str, *, timeout_s: float | None = None) -> Batch:
        """Cancel a batch that has not ended; lines that are scored stay readable."""
        return await self.run(self._operations.cancel_batch(id_of(batch), self._call(timeout_s)))

    async def erase_batch(self, batch: Batch | str, *, timeout_s: float | None = None) -> None:
        """Delete the texts and the results of a batch."""
        await self.run(self._operations.erase_batch(id_of(batch), self._call(timeout_s)))

    async def batch_results(
        self, batch: Batch | str, *, after: int = 0, limit: int = 500
    ) -> AsyncIterator[Line]:
        """Yield the outcome of each line of a batch, in order, as the lines are scored.

        Args:
            after: number of outcomes to skip, because you have them already.
            limit: number of outcomes to fetch in one request.
        """
        async for lines in self.batch_pages(batch, after=after, limit=limit):
            for raw in lines:
                yield line(json_line(raw))

    async def batch_pages(
        self,
        batch: Batch | str,
        *,
        after: int = 0,
        limit: int = 500,
        timeout_s: float | None = None,
        quiet_s: float | None = None,
    ) -> AsyncIterator[list[bytes]]:
        """Yield the lines of `batch_results` as raw JSON, one list for each request.

        Args:
            timeout_s: seconds to wait for the next line.
            quiet_s: yield an empty list when no line has come for this many seconds.
        """
        while True:
            call = self._call(timeout_s)
            steps = self._operations.page(id_of(batch), after, limit, call, quiet_s)
            page = await self.run(steps)
            if page.lines or page.has_more:
                yield page.lines
            after += len(page.lines)
            if not page.has_more:
                return

    # --- the service --------------------------------------------------------------------------

    async def info(self, *, timeout_s: float | None = None) -> Info:
        """Read the model, the outputs and the limits of the service."""
        return await self.run(self._operations.info(self._call(timeout_s)))

    async def get(self, path: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Read the JSON object at a path of the service, such as `/stats`."""
        return await self.run(self._operations.get(path, self._call(timeout_s)))

    # --- running operations -------------------------------------------------------------------

    async def run(self, steps: Steps[T]) -> T:
        """Run the steps of an operation and return its result."""
        return await self._driver.run(steps)

    def _call(self, timeout_s: float | None) -> Call:
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        return Call.begin(timeout_s, self.patience_s)
