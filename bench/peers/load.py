"""Sends texts over HTTP from several clients at once, each with one request at a time."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from evascore.measuring.load import percentile

ANSWER_LIMIT_S = 60.0
# evascore's states of a job that has not ended; the peers have no such answers.
UNFINISHED = ("QUEUED", "STARTED")
ASK_AGAIN_S = 0.1


@dataclass
class Load:
    """What the clients saw."""

    latencies_ms: list[float] = field(default_factory=list)
    """From the first byte of a text's request to the last byte of its result."""
    num_unfinished_answers: int = 0
    """Answers without a result: the client asked again."""
    elapsed_s: float = 0.0

    @property
    def num_texts(self) -> int:
        """Texts with a result."""
        return len(self.latencies_ms)

    def percentile_ms(self, share: float) -> float:
        """The smallest latency that at least `share` of the latencies do not exceed.

        Raises:
            AnswerInvalid: no text has a result.
        """
        found = percentile(self.latencies_ms, share)
        if found is None:
            raise AnswerInvalid("no text has a result")
        return found


class AnswerInvalid(Exception):
    """A server gave an answer that this client does not expect."""


async def send_for(
    port: int,
    texts: Sequence[str],
    *,
    num_clients: int,
    seconds: float = float("inf"),
    num_texts: int | None = None,
    pause_s: float = 0.0,
    answer_limit_s: float = ANSWER_LIMIT_S,
) -> Load:
    """Score `texts` again and again for some seconds, or `num_texts` of them.

    Args:
        seconds: after this time no client begins another request.
        pause_s: the pause of each client before each of its requests.
        answer_limit_s: the longest time that a text may wait for its result.

    Raises:
        AnswerInvalid, TimeoutError, OSError
    """
    load, began = Load(), time.perf_counter()
    queue = itertools.islice(itertools.cycle(texts), num_texts)

    async def client() -> None:
        async with Connection(port) as connection:
            for text in _until(queue, began + seconds):
                await asyncio.sleep(pause_s)
                await _score(connection, text, load, answer_limit_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(num_clients):
            group.create_task(client())
    load.elapsed_s = time.perf_counter() - began
    return load


def _until(texts: Iterator[str], end: float) -> Iterator[str]:
    while time.perf_counter() < end:
        try:
            yield next(texts)
        except StopIteration:
            return


async def _score(connection: "Connection", text: str, load: Load, answer_limit_s: float) -> None:
    began = time.perf_counter()
    status, answer = await connection.ask("POST", "/score", orjson.dumps({"text": text}))
    while status in (200, 202) and answer.get("state") in UNFINISHED:
        if time.perf_counter() - began > answer_limit_s:
            raise AnswerInvalid(f"no result after {answer_limit_s:g} s")
        load.num_unfinished_answers += 1
        await asyncio.sleep(ASK_AGAIN_S)
        status, answer = await connection.ask("GET", f"{answer['links']['self']}?wait=30")
    if status != 200 or "result" not in answer:
        raise AnswerInvalid(f"status {status} without a result")
    load.latencies_ms.append((time.perf_counter() - began) * 1000)


class Connection:
    """A connection that is kept open between requests, with as little work as HTTP allows."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", client: str = ""
    ) -> tuple[int, Any]:
        """Send a request; return the status and the JSON of its answer.

        Args:
            client: an address that the request is said to be forwarded for.

        Raises:
            AnswerInvalid, TimeoutError, OSError
        """
        async with asyncio.timeout(ANSWER_LIMIT_S):
            if self._reader is None or self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(_request(method, path, body, client))
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            status, length, is_kept = read_head(head)
            answer = await self._reader.readexactly(length)
        if not is_kept:
            self._close()
        return status, orjson.loads(answer)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def _request(method: str, path: str, body: bytes, client: str) -> bytes:
    forwarded = f"X-Forwarded-For: {client}\r\n" if client else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=30\r\n{forwarded}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def read_head(head: bytes) -> tuple[int, int, bool]:
    """Status, length of the body, and whether the connection stays open, of a head in lower case.

    Raises:
        AnswerInvalid: the head names no length.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" not in fields:
        raise AnswerInvalid("an answer without Content-Length")
    return int(first.split()[1]), int(fields["content-length"]), fields.get("connection") != "close"
