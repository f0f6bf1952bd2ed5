"""Clients that submit, wait, poll, cancel, erase and upload, and note what the service answers."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import orjson

from contract.messages import FINAL_STATES
from tests.faults.chaos.history import Entry, History, now
from tests.faults.chaos.plan import Plan
from tests.faults.chaos.world import WORKERS, World

# A client submits no more while this many of its jobs have not ended.
MAX_OPEN = 12
_MODELS = (None, *sorted(set(WORKERS.values())))
_COMPLETIONS = "/v1/completions"
_NDJSON = {"Content-Type": "application/x-ndjson"}
_PAUSE_S = 0.05
_PROBE_EVERY_S = 0.3
# An ended batch is deleted this often, so that Redis does not fill with results.
_KEEP_ENDED = 40


class NotServed(Exception):
    """A request got no answer within the patience of the client."""


class Client:
    """One client thread with an API key of its owner."""

    def __init__(self, world: World, history: History, owner: str, name: str, plan: Plan) -> None:
        """Make a client that draws what it does from the seed of `plan`."""
        self._world, self._history, self._owner = world, history, owner
        self._random = random.Random(f"{plan.seed} {name}")
        self._max_lines = plan.max_lines
        self._texts = world.texts[name]
        self._http = self._new_http()
        self._open: list[Entry] = []
        self._ended: list[Entry] = []
        self._number = 0
        self._name = name
        self.patience_until = float("inf")
        """Monotonic time after which it gives up."""

    def run(self, is_over: threading.Event) -> None:
        """Do one thing after the other until `is_over`; then wait until all its jobs have ended."""
        try:
            while not is_over.is_set():
                self._do_something()
            for entry in list(self._open):
                self._follow(entry)
            for entry in self._ended[-_KEEP_ENDED:]:
                self._read(entry)
        except NotServed as error:
            self._history.violate("requests are served", "", error)
        except BaseException as error:  # noqa: BLE001 - the end of a thread; it fails the run
            self._history.violate("the harness works", "", f"{self._name}: {error!r}")
        finally:
            self._http.close()

    def _do_something(self) -> None:
        if len(self._open) >= MAX_OPEN:
            self._follow(self._random.choice(self._open))
            return
        actions: dict[Callable[[], None], int] = {
            self._submit_one: 40,
            self._submit_items: 12,
            self._submit_with_bytes: 5,
            self._submit_late: 6,
            self._submit_and_cancel: 8,
            self._submit_and_erase: 8,
            self._submit_twice: 4,
            self._read_of_other: 4,
            self._read_again: 10,
            self._complete: 3,
            self._watch: 3,
            self._upload: 4,
        }
        (action,) = self._random.choices(list(actions), list(actions.values()))
        action()

    # --- what it does ---------------------------------------------------------------------

    def _submit_one(self) -> None:
        self._submit([self._text()], wait_s=self._random.choice((0, 0, 1)))

    def _submit_items(self) -> None:
        self._submit([self._text() for _ in range(self._random.randint(2, 8))], is_single=False)

    def _submit_with_bytes(self) -> None:
        self._submit([{**self._text(), "outputs": ["bytes"]}])

    def _submit_late(self) -> None:
        self._submit([self._text()], deadline_s=self._random.choice((0.2, 1, 3)))

    def _submit_and_cancel(self) -> None:
        entry = self._submit([self._text()])
        time.sleep(self._random.choice((0, 0, 0.01, 0.3)))
        entry.cancel = "asked"
        answer = self._ask("POST", f"/score/{entry.task_id}/cancel", entry)
        if answer.status_code == httpx.codes.OK:
            entry.cancel = "acknowledged"
            job = answer.json()
            self._check_facts(entry, job)
            if job["state"] != "REVOKED":
                self._violate("cancels hold", entry, job["state"])
        elif answer.status_code != httpx.codes.CONFLICT:
            self._unexpected("cancel", entry, answer)

    def _submit_and_erase(self) -> None:
        entry = self._submit([self._text()])
        if self._random.random() < 0.5:
            self._follow(entry)
        self._erase(entry, "/score")

    def _erase(self, entry: Entry, route: str) -> None:
        entry.erase = "asked"
        answer = self._ask("DELETE", f"{route}/{entry.task_id}", entry)
        if answer.status_code != httpx.codes.NO_CONTENT:
            self._unexpected("erase", entry, answer)
            return
        entry.erase = "acknowledged"
        if self._ask("GET", f"{route}/{entry.task_id}", entry).status_code != httpx.codes.GONE:
            self._violate("erasures hold", entry, "readable after it was erased")

    def _submit_twice(self) -> None:
        entry = self._submit([self._text()])
        again = self._post(entry.requests, entry.is_single, entry.asked, entry.idempotency_key)
        if again.status_code not in (200, 202) or again.json()["id"] != entry.task_id:
            self._unexpected("repeated request", entry, again)

    def _read_of_other(self) -> None:
        others = self._history.of_others(self._owner)
        if others:
            answer = self._ask("GET", f"/score/{self._random.choice(others)}")
            if answer.status_code != httpx.codes.NOT_FOUND:
                self._history.violate("nothing of another client", "", answer.status_code)

    def _read_again(self) -> None:
        if self._ended:
            self._read(self._random.choice(self._ended))

    def _complete(self) -> None:
        text = self._random.choice(self._texts)
        model = self._random.choice(_MODELS)
        body = {"model": model or "evascore", "prompt": text, "max_tokens": 0}
        answer = self._ask("POST", _COMPLETIONS, json={**body, "echo": True, "logprobs": 1})
        if answer.status_code != httpx.codes.OK:
            self._history.violate("completions are scored", "", answer.text)
            return
        (choice,) = answer.json()["choices"]
        nats = sum(each for each in choice["logprobs"]["token_logprobs"] if each is not None)
        self._history.completions.append((model or "mine", text, nats))

    def _watch(self) -> None:
        """Read the events of a job; each state comes after those before it."""
        entry = self._submit([self._text()])
        order = {"QUEUED": 0, "STARTED": 1, **dict.fromkeys(FINAL_STATES, 2)}
        states = []
        with suppress(httpx.TransportError):
            path = f"/score/{entry.task_id}/events"
            with self._http.stream("GET", path, headers=self._headers(), timeout=10) as stream:
                for line in stream.iter_lines():
                    if line.startswith("data:"):
                        job = orjson.loads(line[5:])
                        self._check_facts(entry, job)
                        states.append(order[job["state"]])
        if states != sorted(states):
            self._violate("states go one way", entry, states)

    def _upload(self) -> None:
        requests = [self._text() for _ in range(self._random.randint(10, self._max_lines))]
        model = self._random.choice(_MODELS)
        submitted_at, key = now(), self._key()
        answer = self._ask(
            *("POST", "/batches"),
            params={"model": model} if model else {},
            content=b"".join(orjson.dumps(each) + b"\n" for each in requests),
            headers={**_NDJSON, "Idempotency-Key": key},
        )
        if answer.status_code != httpx.codes.ACCEPTED and answer.status_code != httpx.codes.OK:
            self._history.violate("uploads are accepted", "", answer.text)
            return
        batch_id = str(answer.json()["id"])
        entry = self._accept(batch_id, "batch", model, requests, False, submitted_at, None, key)
        if self._random.random() < 0.2:
            time.sleep(self._random.uniform(0, 0.5))
            entry.cancel = "asked"
            answer = self._ask("POST", f"/batches/{batch_id}/cancel", entry)
            if answer.status_code == httpx.codes.OK:
                entry.cancel = "acknowledged"
        elif self._random.random() < 0.2:
            time.sleep(self._random.uniform(0, 0.5))
            # It is read again, so that a batch that a fault brings back is noticed.
            self._close(entry)
            self._erase(entry, "/batches")

    # --- jobs -----------------------------------------------------------------------------

    def _submit(
        self,
        requests: list[dict[str, Any]],
        *,
        is_single: bool = True,
        deadline_s: float | None = None,
        wait_s: int = 0,
    ) -> Entry:
        model, key, submitted_at = self._random.choice(_MODELS), self._key(), now()
        answer = self._post(requests, is_single, model, key, deadline_s=deadline_s, wait_s=wait_s)
        assert answer.status_code in (200, 202), f"{answer.status_code}: {answer.text}"
        job = answer.json()
        task_id = str(job["id"])
        entry = self._accept(
            task_id, "job", model, requests, is_single, submitted_at, deadline_s, key
        )
        self._see(entry, job)
        return entry

    def _post(
        self,
        requests: list[dict[str, Any]],
        is_single: bool,
        model: str | None,
        key: str,
        *,
        deadline_s: float | None = None,
        wait_s: int = 0,
    ) -> httpx.Response:
        body: dict[str, Any] = dict(requests[0]) if is_single else {"items": requests}
        if model:
            body["model"] = model
        if deadline_s is not None:
            body["deadline_s"] = deadline_s
        params = {"wait": wait_s} if wait_s else {}
        headers = {"Idempotency-Key": key}
        return self._ask("POST", "/score", json=body, params=params, headers=headers)

    def _accept(
        self,
        task_id: str,
        kind: str,
        model: str | None,
        requests: list[dict[str, Any]],
        is_single: bool,
        submitted_at: float,
        deadline_s: float | None,
        key: str,
    ) -> Entry:
        entry = Entry(
            task_id,
            kind,  # type: ignore[arg-type]
            self._owner,
            model or "mine",
            model,
            requests,
            is_single,
            submitted_at,
            deadline_s,
            key,
        )
        self._open.append(entry)
        return self._history.accept(entry)

    def _follow(self, entry: Entry) -> None:
        """Read a job or batch until it has ended."""
        while entry in self._open:
            self._read(entry, wait_s=5)
            if time.monotonic() > self.patience_until:
                self._violate("every accepted ID ends", entry, "has not ended")
                return

    def _read(self, entry: Entry, wait_s: int = 0) -> None:
        if entry.kind == "batch":
            self._read_batch(entry, wait_s)
            return
        params = {"wait": wait_s} if wait_s else {}
        answer = self._ask("GET", f"/score/{entry.task_id}", entry, params=params)
        if answer.status_code == httpx.codes.GONE and entry.erase:
            self._close(entry)
        elif entry.erase == "acknowledged":
            self._violate("erasures hold", entry, answer.status_code)
        elif answer.status_code == httpx.codes.OK:
            self._see(entry, answer.json())
        elif entry.task_id in self._history.damaged:
            time.sleep(_PAUSE_S)
        else:
            self._unexpected("read", entry, answer)
            self._close(entry)

    def _see(self, entry: Entry, job: dict[str, Any]) -> None:
        """Note the state of a job."""
        self._check_facts(entry, job)
        if job["state"] in FINAL_STATES:
            self._history.see_final(entry, job)
            self._close(entry)
        elif entry.final is not None:
            self._violate("final states never change", entry, job["state"])
        elif entry.cancel == "acknowledged":
            self._violate("cancels hold", entry, job["state"])

    def _read_batch(self, entry: Entry, wait_s: int) -> None:
        path = f"/batches/{entry.task_id}"
        params = {"wait": wait_s} if wait_s else {}
        answer = self._ask("GET", path, entry, params=params)
        if answer.status_code == httpx.codes.GONE and entry.erase:
            self._close(entry)
            return
        if entry.erase == "acknowledged":
            self._violate("erasures hold", entry, answer.status_code)
            return
        if answer.status_code != httpx.codes.OK:
            self._unexpected("read", entry, answer)
            self._close(entry)
            return
        batch = answer.json()
        if not batch["completed_at"]:
            if entry.final is not None:
                self._violate("final states never change", entry, batch["status"])
            return
        is_first = entry.final is None
        self._history.see_final(entry, batch)
        results = self._results(entry, path)
        if is_first:
            entry.results = results
        elif results != entry.results:
            self._violate("final states never change", entry, "results")
        self._close(entry)

    def _results(self, entry: Entry, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < len(entry.requests):
            answer = self._ask("GET", f"{path}/results", entry, params={"after": len(found)})
            lines = [orjson.loads(line) for line in answer.text.splitlines()]
            if answer.status_code != httpx.codes.OK or not lines:
                self._unexpected("results", entry, answer)
                break
            found += lines
        return found

    def _close(self, entry: Entry) -> None:
        if entry in self._open:
            self._open.remove(entry)
            self._ended.append(entry)

    # --- requests -------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, entry: Entry | None = None, **request: Any
    ) -> httpx.Response:
        """The answer to a request that is sent until it is served."""
        headers = {**self._headers(), **request.pop("headers", {})}
        tried_at = time.monotonic()
        while True:
            if path == _COMPLETIONS:
                self._history.try_completion()
            try:
                answer = self._http.request(method, path, headers=headers, **request)
                if answer.status_code not in (429, 503):
                    break
            except httpx.TransportError:
                # What a broken connection left in the pool must not spoil the next request.
                self._http.close()
                self._http = self._new_http()
            self._history.refuse()
            if time.monotonic() > max(self.patience_until, tried_at):
                raise NotServed(f"{method} {path}")
            time.sleep(self._random.uniform(1, 4) * _PAUSE_S)
        is_damaged = entry is not None and entry.task_id in self._history.damaged
        is_refused = answer.status_code in (401, 403)
        if (answer.status_code >= 500 or is_refused) and not is_damaged:
            detail = f"{method} {path}: {answer.status_code} {answer.text}"
            self._history.violate("no error but 503", entry.task_id if entry else "", detail)
        return answer

    def _new_http(self) -> httpx.Client:
        return httpx.Client(base_url=self._world.url, timeout=15)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._world.tokens[self._owner]}"}

    def _text(self) -> dict[str, Any]:
        self._number += 1
        text = self._random.choice(self._texts)
        return {"text": text, "custom_id": f"{self._name}-{self._number}"}

    def _key(self) -> str:
        return f"{self._name}-{self._random.getrandbits(64):x}"

    def _check_facts(self, entry: Entry, job: dict[str, Any]) -> None:
        if job["id"] != entry.task_id or job["num_texts"] != len(entry.requests):
            is_damaged = entry.task_id in self._history.damaged
            if job["id"] != entry.task_id or not is_damaged:
                self._violate("nothing of another job", entry, job)

    def _unexpected(self, what: str, entry: Entry, answer: httpx.Response) -> None:
        if entry.task_id not in self._history.damaged:
            self._violate(f"{what} is served", entry, f"{answer.status_code} {answer.text}")

    def _violate(self, promise: str, entry: Entry, detail: object) -> None:
        self._history.violate(promise, entry.task_id, detail)


class Probe(Client):
    """A client that sends one short text to one model at a time, to measure recoveries."""

    def __init__(self, world: World, history: History, model: str, plan: Plan) -> None:
        """Make a probe of `model`."""
        super().__init__(world, history, "probes", f"probe-{model}", plan)
        self._model = model

    def _do_something(self) -> None:
        began_at = now()
        key, requests = self._key(), [self._text()]
        answer = self._post(requests, True, self._model, key, wait_s=5)
        assert answer.status_code in (200, 202), f"{answer.status_code}: {answer.text}"
        job = answer.json()
        entry = self._accept(
            str(job["id"]), "job", self._model, requests, True, began_at, None, key
        )
        self._see(entry, job)
        self._follow(entry)
        self._history.probes.append((self._model, began_at, now()))
        time.sleep(_PROBE_EVERY_S)
