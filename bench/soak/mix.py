"""Sends a mix of all kinds of work to a service, each request at its own random time."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import httpx
import orjson

from evascore.measuring.load import arrivals

# Requests of one owner at once; those that are due beyond them are counted, and not sent. With many
# more, this process would take a core for its own sockets.
MAX_UNDER_WAY = 150
WAIT_S = 30
# Requests that are under way when a load ends have so long to be answered.
LAST_ANSWERS_S = 60.0
_NDJSON = {"Content-Type": "application/x-ndjson"}
_BATCH_LINES = 60
_ITEMS = 8


class Answered(NamedTuple):
    """One request that was served."""

    due_at: float
    """Monotonic time, seconds."""
    latency_s: float
    """From the time when it was due to its result."""


class Owner:
    """A client with an API key; its requests come at random times (a Poisson process)."""

    def __init__(self, url: str, token: str, texts: list[str], seed: int) -> None:
        """Make a client that draws everything from `seed`."""
        self._random = random.Random(seed)
        self._texts = texts
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=WAIT_S + 30,
            limits=httpx.Limits(max_connections=MAX_UNDER_WAY),
        )
        self.answered: list[Answered] = []
        """Texts that were scored while their request waited."""
        self.counts: Counter[str] = Counter()
        """Requests by kind and outcome."""

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def send(
        self, kinds: Mapping[str, float], rate_per_s: float, duration_s: float, seed: int
    ) -> None:
        """Send requests at a mean rate for `duration_s`, and wait a while for the last answers."""
        began, under_way = time.monotonic(), set[asyncio.Task[None]]()
        for at in arrivals(rate_per_s, duration_s, seed):
            await asyncio.sleep(max(began + at - time.monotonic(), 0))
            (kind,) = self._random.choices(list(kinds), list(kinds.values()))
            if len(under_way) >= MAX_UNDER_WAY:
                self.counts["not sent: too many under way"] += 1
                continue
            task = asyncio.create_task(self._one(kind, began + at))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if not under_way:
            return
        answered, late = await asyncio.wait(under_way, timeout=LAST_ANSWERS_S)
        for task in late:
            task.cancel()
            self.counts["no answer in time"] += 1
        await asyncio.gather(*answered)

    async def repeat(self, kinds: Mapping[str, float], duration_s: float) -> None:
        """Send one request after the other; each waits for the result of the last."""
        end = time.monotonic() + duration_s
        while (now := time.monotonic()) < end:
            (kind,) = self._random.choices(list(kinds), list(kinds.values()))
            await self._one(kind, now)

    async def _one(self, kind: str, due_at: float) -> None:
        does: dict[str, Callable[[float], Awaitable[httpx.Response]]] = {
            "text": self._text,
            "items": self._items,
            "details": self._details,
            "next characters": self._next_characters,
            "batch": self._batch,
            "cancel": self._cancel,
            "erase": self._erase,
        }
        try:
            answer = await does[kind](due_at)
        except httpx.TransportError as error:
            self.counts[f"{kind}: {type(error).__name__}"] += 1
        else:
            self.counts[f"{kind}: {answer.status_code}"] += 1

    # --- what it does ---------------------------------------------------------------------

    async def _text(self, due_at: float) -> httpx.Response:
        return await self._score({"text": self._some_text()}, due_at)

    async def _items(self, due_at: float) -> httpx.Response:
        return await self._score({"items": [{"text": self._some_text()}] * _ITEMS})

    async def _details(self, due_at: float) -> httpx.Response:
        return await self._score({"text": self._some_text(), "outputs": ["bytes", "top_k"]})

    async def _next_characters(self, due_at: float) -> httpx.Response:
        return await self._score({"text": self._some_text(), "next_chars": 5})

    async def _score(self, body: dict[str, Any], due_at: float | None = None) -> httpx.Response:
        answer = await self._http.post("/score", json=body, params={"wait": WAIT_S})
        if due_at is not None and answer.status_code == httpx.codes.OK:
            self.answered.append(Answered(due_at, time.monotonic() - due_at))
        return answer

    async def _batch(self, due_at: float) -> httpx.Response:
        """Upload a batch, wait for it, read its results and delete it."""
        lines = b"".join(
            orjson.dumps({"text": self._some_text()}) + b"\n" for _ in range(_BATCH_LINES)
        )
        posted = await self._http.post("/batches", content=lines, headers=_NDJSON)
        if posted.status_code != httpx.codes.ACCEPTED:
            return posted
        path = posted.headers["Location"]
        while True:
            found = await self._http.get(path, params={"wait": WAIT_S})
            if found.status_code != httpx.codes.OK:
                return found
            if found.json()["completed_at"]:
                break
        results = await self._http.get(f"{path}/results")
        await self._http.delete(path)
        return results

    async def _cancel(self, due_at: float) -> httpx.Response:
        return await self._then("POST", "/cancel")

    async def _erase(self, due_at: float) -> httpx.Response:
        return await self._then("DELETE", "")

    async def _then(self, method: str, suffix: str) -> httpx.Response:
        """Submit a text, and do something to its job before or after it is scored."""
        posted = await self._http.post("/score", json={"text": self._some_text()})
        if posted.status_code != httpx.codes.ACCEPTED:
            return posted
        await asyncio.sleep(self._random.uniform(0, 0.5))
        return await self._http.request(method, f"/score/{posted.json()['id']}{suffix}")

    def _some_text(self) -> str:
        return self._random.choice(self._texts)
