"""The synchronous client."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import httpx

from evascore import transport
from evascore.calls import BatchLines, batch_request, job_fields, json_line, score_fields
from evascore.errors import EvascoreError
from evascore.grouping import Errors, groups, told
from evascore.operations import Operations
from evascore.results import Batch, Info, Job, Line, Score, id_of, line
from evascore.retrying import Call
from evascore.steps import Pause, Reply, Step, Steps
from evascore.texts import Text
from evascore.threads import DaemonPool

T = TypeVar("T")


class Client:
    """A client of one service; may be shared between threads.

    What may pass later is repeated, with the waiting times that the service names or with random
    ones that grow, for at most `patience_s` while it is away and `timeout_s` in all. Each
    submission carries an Idempotency-Key, so that no repetition is scored twice.
    """

    def __init__(
        self,
        url: str = transport.DEFAULT_URL,
        *,
        timeout_s: float = 300,
        patience_s: float = 30,
        http: httpx.Client | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: of the service; may hold a name and a password for a proxy in front of it.
            timeout_s: how long a call may take, unless it says otherwise.
            patience_s: how long a call goes on while the service is away or has no room.
            http: the connections to use, with headers of your own for example.

        Raises:
            UrlInvalid
        """
        self.url = transport.base_url(url)
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self._operations = Operations()
        self._http = http or httpx.Client(limits=transport.LIMITS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    # --- scores -------------------------------------------------------------------------------

    def score(
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
            context: what precedes the text; conditions it, is not scored.
            outputs: besides the summary: `bytes`, `top_k`, `curvature`.
            top_k: how many likeliest bytes the output `top_k` lists.
            options: further fields of the API, such as `next_chars`, `priority` or `deadline_s`.

        Raises:
            ServiceError: it was refused or failed; the subclass says how.
            ServiceUnreachable, TimedOut
        """
        fields = score_fields(text, context, outputs, top_k, options)
        return self._run(self._operations.complete(fields, self._call(timeout_s), key=None)).score()

    def score_continuations(
        self,
        context: str | bytes,
        continuations: Sequence[str | bytes],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> list[Score]:
        """Score several continuations of one context, which is read once; in their order.

        Raises:
            ServiceError, ServiceUnreachable, TimedOut
        """
        fields = job_fields(context=context, continuations=continuations, **options)
        call = self._call(timeout_s)
        return self._run(self._operations.complete(fields, call, key=None)).continuations()

    def score_many(
        self,
        texts: Iterable[str | bytes | Text],
        *,
        errors: Errors = "raise",
        concurrency: int = 4,
        progress: Callable[[int], None] | None = None,
        timeout_s: float | None = None,
        **asked: Any,
    ) -> Iterator[Score | EvascoreError]:
        """Score many texts, in order, some requests at a time; reads `texts` as it goes.

        Args:
            errors: whether the first text that fails raises, or each error stands in its place.
            concurrency: requests at once, of up to 32 texts each.
            progress: is told the number of texts done so far.
            timeout_s: for each request.
            asked: `context`, `outputs`, `top_k` and `options` of texts that are not `Text`.
        """
        num_done = 0
        for outcomes in self._in_order(groups(texts, asked), concurrency, timeout_s):
            num_done += len(outcomes)
            if progress is not None:
                progress(num_done)
            yield from told(outcomes, errors)

    # --- jobs ---------------------------------------------------------------------------------

    def submit(
        self,
        *texts: str | bytes | Text,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Job:
        """Submit a job of one text or several, and do not wait for it.

        Args:
            idempotency_key: the same key with the same texts is the same job; random if None.
            options: further fields of the request, such as `priority` or `deadline_s`.

        Raises:
            ServiceError, ServiceUnreachable
        """
        fields, call = job_fields(*texts, **options), self._call(timeout_s)
        return self._run(self._operations.submit(fields, call, key=idempotency_key))

    def wait(self, job: Job | str, *, timeout_s: float | None = None) -> Job:
        """The job once it is final.

        Raises:
            TimedOut: it is not final yet; nothing is lost, wait again.
            ServiceError, ServiceUnreachable
        """
        return self._run(self._operations.wait(id_of(job), self._call(timeout_s)))

    def job(self, job: Job | str, *, timeout_s: float | None = None) -> Job:
        """The job as it is now."""
        return self._run(self._operations.read(id_of(job), self._call(timeout_s)))

    def cancel(self, job: Job | str, *, timeout_s: float | None = None) -> Job:
        """End a job that has not ended.

        Raises:
            JobEnded: it had.
        """
        return self._run(self._operations.cancel(id_of(job), self._call(timeout_s)))

    def erase(self, job: Job | str, *, timeout_s: float | None = None) -> None:
        """Forget text and result of a job, whatever its state."""
        self._run(self._operations.erase(id_of(job), self._call(timeout_s)))

    # --- batches ------------------------------------------------------------------------------

    def submit_batch(
        self,
        lines: BatchLines,
        *,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Batch:
        """Upload a batch, streamed.

        Args:
            lines: a path of NDJSON, or a sequence of texts.
            idempotency_key: the same key with the same lines is the same batch; random if None.
            options: of the query: `on_error`, `outputs`, `top_k`, `deadline_s`.

        Raises:
            ServiceError, ServiceUnreachable
        """
        request, call = batch_request(lines, options), self._call(timeout_s)
        return self._run(self._operations.submit_batch(request, call, key=idempotency_key))

    def batch(self, batch: Batch | str, *, timeout_s: float | None = None) -> Batch:
        """The batch as it is now."""
        return self._run(self._operations.read_batch(id_of(batch), self._call(timeout_s)))

    def wait_batch(self, batch: Batch | str, *, timeout_s: float | None = None) -> Batch:
        """The batch once it is final.

        Raises:
            TimedOut: it is not final yet; nothing is lost, wait again.
        """
        return self._run(self._operations.wait_batch(id_of(batch), self._call(timeout_s)))

    def cancel_batch(self, batch: Batch | str, *, timeout_s: float | None = None) -> Batch:
        """End a batch that has not ended; what is scored stays readable."""
        return self._run(self._operations.cancel_batch(id_of(batch), self._call(timeout_s)))

    def erase_batch(self, batch: Batch | str, *, timeout_s: float | None = None) -> None:
        """Forget the texts and the results of a batch."""
        self._run(self._operations.erase_batch(id_of(batch), self._call(timeout_s)))

    def batch_results(
        self, batch: Batch | str, *, after: int = 0, limit: int = 500
    ) -> Iterator[Line]:
        """The outcomes of a batch's lines in order, as they come.

        Args:
            after: how many you have already; the next one is the first to come.
            limit: how many to fetch at a time.
        """
        for lines in self.batch_pages(batch, after=after, limit=limit):
            for raw in lines:
                yield line(json_line(raw))

    def batch_pages(
        self,
        batch: Batch | str,
        *,
        after: int = 0,
        limit: int = 500,
        timeout_s: float | None = None,
    ) -> Iterator[list[bytes]]:
        """The lines of `batch_results` as they are sent, some at a time.

        Args:
            timeout_s: the longest time that no line may come.
        """
        while True:
            call = self._call(timeout_s)
            page = self._run(self._operations.page(id_of(batch), after, limit, call))
            if page.lines:
                yield page.lines
            after += len(page.lines)
            if not page.has_more:
                return

    # --- the service --------------------------------------------------------------------------

    def info(self, *, timeout_s: float | None = None) -> Info:
        """What the service scores with, and what may be asked of it."""
        return self._run(self._operations.info(self._call(timeout_s)))

    def get(self, path: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """The JSON object at a path of the service, such as `/stats`."""
        return self._run(self._operations.get(path, self._call(timeout_s)))

    # --- running steps ------------------------------------------------------------------------

    def _in_order(
        self, parts: Iterator[list[Text]], concurrency: int, timeout_s: float | None
    ) -> Iterator[list[Score | EvascoreError]]:
        """The outcomes of each group in its turn, `concurrency` groups at a time under way."""
        waiting: deque[Future[list[Score | EvascoreError]]] = deque()
        pool = DaemonPool[list[Score | EvascoreError]](concurrency)
        try:
            for group in parts:
                waiting.append(pool.submit(partial(self._outcomes, group, timeout_s)))
                # As many again wait their turn, so that one slow group idles no thread.
                if len(waiting) == 2 * concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.close()

    def _outcomes(self, texts: list[Text], timeout_s: float | None) -> list[Score | EvascoreError]:
        return self._run(self._operations.outcomes(texts, self._call(timeout_s)))

    def _call(self, timeout_s: float | None) -> Call:
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        return Call.begin(timeout_s, self.patience_s)

    def _run(self, steps: Steps[T]) -> T:
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            reply = self._do(step)

    def _do(self, step: Step) -> Reply:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            options = transport.request_options(self.url, step)
            response = self._http.request(
                **options, content=step.body if isinstance(step.body, bytes) else step.body()
            )
            return transport.answer_of(response)
        except httpx.TransportError as error:
            return transport.lost_of(error, self.url)
