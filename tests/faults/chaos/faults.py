"""Breaks one part of the running service for a while, and then repairs it."""

import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import redis

from contract import keys
from contract.queue_messages import decode_message
from contract.versions import Unreadable
from deploy.disk_guard import REFUSES_WRITES, TAKES_WRITES
from tests.faults.chaos.history import Entry, History, Period, now
from tests.faults.chaos.plan import Plan, lane
from tests.faults.chaos.world import LEASE_S, WORKERS, World
from tests.waiting_messages import waiting

MIN_CLOCK_JUMP_S, MAX_CLOCK_JUMP_S = 3, 600
# Redis is asked about its memory by each web process once a second, and results must find room.
_MEMORY_HELD_S = (1.0, 4.0)
_NEXT_RELEASE_S = 4.0


class Missed(Exception):
    """The fault could not be made, for example because nothing waits in the queue."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault, and the parts that it may hit; one fault at a time is at each part."""

    targets: tuple[str, ...]
    run: Callable[[World, str, random.Random], None]


_workers = tuple(WORKERS)
_links = ("clients", "web", *WORKERS)


def kill(world: World, name: str, _: random.Random) -> None:
    """End a part by SIGKILL."""
    world.kill(name)


def restart(world: World, name: str, _: random.Random) -> None:
    """End a part by SIGTERM, and wait until it is gone."""
    process = world.process(name)
    world.terminate(name)
    with suppress(psutil.TimeoutExpired):
        process.wait(30)


def freeze(world: World, name: str, generator: random.Random) -> None:
    """Stop a worker past its lease; its jobs go to others, and then it writes what it has."""
    _suspend(world, name, LEASE_S * generator.uniform(1.2, 3))


def freeze_briefly(world: World, name: str, generator: random.Random) -> None:
    """Stop Redis or the web server for about the time limit of Redis."""
    _suspend(world, name, generator.uniform(0.2, 3))


def _suspend(world: World, name: str, seconds: float) -> None:
    with suppress(psutil.NoSuchProcess):
        process = world.process(name)
        family = [process, *process.children(recursive=True)]
        for each in family:
            each.suspend()
        time.sleep(seconds)
        for each in family:
            each.resume()


def cut_power(world: World, name: str, generator: random.Random) -> None:
    """End Redis by SIGKILL, and lose a part of its file that nobody was answered about.

    What is in the file when the answers are held back has been synced. What is added afterwards
    nobody has heard of, so a power cut may take any part of it.
    """
    links = [proxy for each, proxy in world.proxies.items() if each != "clients"]
    world.is_stopped[name] = True
    try:
        for proxy in links:
            proxy.hold_answers()
        with _redis(world) as client:
            # Its answer says that all before it is on disk.
            client.set("chaos:synced", "1", ex=60)
        path = _append_only_file(world)
        synced_bytes = path.stat().st_size
        time.sleep(generator.uniform(0.01, 0.2))
        world.kill(name)
        _wait_until_gone(world)
        if path.exists() and path == _append_only_file(world):
            os.truncate(path, generator.randint(synced_bytes, path.stat().st_size))
    finally:
        for proxy in links:
            proxy.reset()
        world.is_stopped[name] = False


def fill_disk(world: World, name: str, generator: random.Random) -> None:
    """Have a write to the append-only file fail in its middle: Redis ends."""
    process = world.process(name)
    most = _append_only_file(world).stat().st_size + generator.randrange(2000)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    with suppress(psutil.TimeoutExpired):
        process.wait(5)
    with suppress(ProcessLookupError):
        limits = resource.RLIM_INFINITY, resource.RLIM_INFINITY
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)


def refuse_writes(world: World, _: str, generator: random.Random) -> None:
    """Have Redis take no writes, as `make run` does while its disk is nearly full."""
    with _redis(world) as client:
        for name, value in REFUSES_WRITES.items():
            client.config_set(name, value)
        try:
            time.sleep(generator.uniform(0.5, 4))
        finally:
            _configure(world, TAKES_WRITES)


def fill_memory(world: World, _: str, generator: random.Random) -> None:
    """Set `maxmemory` below what Redis uses."""
    with _redis(world) as client:
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", int(used * generator.uniform(0.5, 1)))
        try:
            time.sleep(generator.uniform(*_MEMORY_HELD_S))
        finally:
            _configure(world, {"maxmemory": "0"})


def reset_connections(world: World, link: str, _: random.Random) -> None:
    """Reset all connections of a link."""
    world.proxies[link].reset()


def half_close(world: World, link: str, _: random.Random) -> None:
    """Close one direction of all connections of a link."""
    world.proxies[link].half_close()


def partition(world: World, link: str, generator: random.Random) -> None:
    """Hold everything back on a link; it arrives later."""
    world.proxies[link].cut()
    time.sleep(generator.uniform(0.3, 3 * LEASE_S))
    world.proxies[link].mend()


def blackhole(world: World, link: str, generator: random.Random) -> None:
    """Lose everything on a link; its connections stay open and silent."""
    world.proxies[link].swallow_all(is_on=True)
    time.sleep(generator.uniform(0.3, 2 * LEASE_S))
    world.proxies[link].swallow_all(is_on=False)


def delay(world: World, link: str, generator: random.Random) -> None:
    """Make a link slow, at times slower than the time limit of Redis."""
    world.proxies[link].delay(generator.choice((0.02, 0.1, 0.4, 0.7)))
    time.sleep(generator.uniform(1, 4))
    world.proxies[link].delay(0)


def duplicate_messages(world: World, _: str, generator: random.Random) -> None:
    """Put copies of waiting and of fetched messages into the queue."""
    with _redis(world) as client:
        found = _waiting_messages(client) + _fetched_messages(client)
        if not found:
            raise Missed
        for raw in generator.choices(found, k=min(len(found), 5)):
            client.lpush(keys.queue_list(keys.INTERACTIVE), raw)


def garble_messages(world: World, _: str, generator: random.Random) -> None:
    """Put messages into the queue that nobody can read."""
    with _redis(world) as client:
        whole = (_waiting_messages(client) or [b'{"headers": {"id": "x", "task": "other"}}'])[0]
        # Without the end it is not JSON, and its delivery tag is missing too.
        pieces = (whole[: len(whole) // 2], generator.randbytes(200), b"", b"[]", b"\xff\x00{")
        for piece in pieces:
            client.lpush(keys.queue_list(generator.choice(keys.PRIORITY_STEPS)), piece)


def cut_messages(world: World, _: str, generator: random.Random) -> None:
    """Cut waiting messages, each in its place: their jobs are scored all the same."""
    with _redis(world) as client:
        for name in generator.sample(found := _waiting_lists(client), k=min(len(found), 3)):
            with client.pipeline() as pipe:
                pipe.watch(name)
                raw = pipe.lindex(name, 0)
                if raw is None or len(raw) < 500:
                    continue
                pipe.multi()
                pipe.lset(name, 0, raw[: generator.randrange(len(raw) // 2, len(raw))])
                pipe.execute()
        if not found:
            raise Missed


def lose_message(world: World, _: str, generator: random.Random) -> None:
    """Delete the message of a waiting job: the job ends at its deadline."""
    with _redis(world) as client:
        lists = [name for name in _waiting_lists(client) if b":0:" in name]
        if not lists:
            raise Missed
        name = generator.choice(lists)
        raw = client.lindex(name, 0) or b""
        try:
            task_id = decode_message(raw).task_id
        except Unreadable:
            # Another fault broke it.
            raise Missed from None
        world.history.damaged[task_id] = "message"
        client.lrem(name, 1, raw)


def damage_payload(world: World, _: str, generator: random.Random) -> None:
    """Overwrite the payload of a waiting job."""
    with _redis(world) as client:
        task_id = _some_job(client, generator)
        world.history.damaged[task_id] = "payload"
        if not client.set(keys.payload(task_id), generator.randbytes(50), xx=True, keepttl=True):
            raise Missed


def damage_record(world: World, _: str, generator: random.Random) -> None:
    """Overwrite the record of a waiting job, unless it has ended meanwhile."""
    with _redis(world) as client:
        task_id = _some_job(client, generator)
        name = keys.record(task_id)
        with client.pipeline() as pipe:
            pipe.watch(name)
            if b'"QUEUED"' not in (pipe.get(name) or b"")[:40]:
                raise Missed
            world.history.damaged[task_id] = "record"
            pipe.multi()
            pipe.set(name, generator.choice((b"", b"{", b"no record", b"\x00")), keepttl=True)
            pipe.execute()


def jump_clock(world: World, name: str, generator: random.Random) -> None:
    """Set the clock of a process wrong for a while, forwards or backwards."""
    seconds = generator.uniform(MIN_CLOCK_JUMP_S, MAX_CLOCK_JUMP_S)
    world.jump(name, generator.choice((-1, 1)) * seconds)
    # A process looks at the file of its clock once a second.
    time.sleep(generator.uniform(2, 5))
    world.jump(name, 0)
    time.sleep(1.2)


def deploy_web(world: World, _: str, generator: random.Random) -> None:
    """Run a web server of the next release beside ours, and submit jobs through it."""
    server = world.web_of_next_release().start()
    try:
        until = time.monotonic() + _NEXT_RELEASE_S
        while time.monotonic() < until:
            _submit_unread(world, server.url, generator)
    finally:
        server.stop()


def deploy_worker(world: World, _: str, __: random.Random) -> None:
    """Run a worker of the next release beside ours, which takes jobs of the same model."""
    worker = world.worker_of_next_release().start_cold()
    try:
        worker.wait_ready()
        time.sleep(_NEXT_RELEASE_S)
    finally:
        worker.send(signal.SIGTERM)
        worker.wait_exit()


FAULTS: dict[str, Fault] = {
    "kill worker": Fault(_workers, kill),
    "kill web": Fault(("web",), kill),
    "kill redis": Fault(("redis",), kill),
    "restart worker": Fault(_workers, restart),
    "restart web": Fault(("web",), restart),
    "restart redis": Fault(("redis",), restart),
    "freeze worker": Fault(_workers, freeze),
    "freeze redis": Fault(("redis",), freeze_briefly),
    "freeze web": Fault(("web",), freeze_briefly),
    "cut power": Fault(("redis",), cut_power),
    "fill disk": Fault(("redis",), fill_disk),
    "refuse writes": Fault(("redis",), refuse_writes),
    "fill memory": Fault(("redis",), fill_memory),
    "reset connections": Fault(_links, reset_connections),
    "half-close": Fault(_links, half_close),
    "partition": Fault(_links, partition),
    "blackhole": Fault(_links, blackhole),
    "delay": Fault(_links, delay),
    "duplicate messages": Fault(("queue",), duplicate_messages),
    "garble messages": Fault(("queue",), garble_messages),
    "cut messages": Fault(("queue",), cut_messages),
    "lose message": Fault(("queue",), lose_message),
    "damage payload": Fault(("queue",), damage_payload),
    "damage record": Fault(("queue",), damage_record),
    "jump clock": Fault(("web", *WORKERS), jump_clock),
    "deploy web of next release": Fault(("next",), deploy_web),
    "deploy worker of next release": Fault(("next",), deploy_worker),
}


class Breaker:
    """Makes the faults of a plan, several at once."""

    def __init__(self, world: World, plan: Plan, history: History) -> None:
        """Prepare the lanes; `run` makes the faults."""
        self._world, self._plan, self._history = world, plan, history
        names = {target for fault in FAULTS.values() for target in fault.targets}
        self._locks = {name: threading.Lock() for name in names}

    def run(self) -> None:
        """Make faults until the time of the plan is over; return when all are set right."""
        until = time.monotonic() + self._plan.seconds
        lanes = [
            threading.Thread(target=self._run_lane, args=(number, until), daemon=True)
            for number in range(self._plan.num_lanes)
        ]
        for each in lanes:
            each.start()
        for each in lanes:
            each.join()

    def _run_lane(self, number: int, until: float) -> None:
        for step in lane(self._plan, number, tuple(FAULTS)):
            time.sleep(min(step.pause_s, max(until - time.monotonic(), 0)))
            if time.monotonic() >= until:
                return
            generator = random.Random(step.seed)
            fault = FAULTS[step.kind]
            target = generator.choice(fault.targets)
            with self._locks[target]:
                self._make(step.kind, fault, target, generator)

    def _make(self, kind: str, fault: Fault, target: str, generator: random.Random) -> None:
        began_at = now()
        try:
            fault.run(self._world, target, generator)
        except (Missed, redis.RedisError, OSError):
            self._history.miss(kind)
        except BaseException as error:  # noqa: BLE001 - the next fault is made; it fails the run
            self._history.violate("the harness works", "", f"{kind}: {error!r}")
        else:
            self._history.note(Period(kind, target, began_at, now()))


@contextmanager
def _redis(world: World) -> Iterator[redis.Redis]:
    with world.redis() as client:
        yield client


def _configure(world: World, options: dict[str, str]) -> None:
    """Set options of Redis; one that was restarted meanwhile has its own again."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(redis.RedisError), _redis(world) as client:
            for name, value in options.items():
                client.config_set(name, value)
            return
        time.sleep(0.1)


def _append_only_file(world: World) -> Path:
    """The file that Redis appends to now."""
    (manifest,) = (world.folder / "redis" / "appendonlydir").glob("*.manifest")
    lines = [line.split() for line in manifest.read_text().splitlines()]
    names = [words[1] for words in lines if words[-1] == "i"]
    if not names:
        # Redis is just rewriting it.
        raise Missed
    return manifest.parent / names[-1]


def _wait_until_gone(world: World) -> None:
    process = world.redis_server.process
    if process is not None:
        process.wait(30)


def _waiting_messages(client: redis.Redis) -> list[bytes]:
    return [raw for priority in keys.PRIORITY_STEPS for raw in waiting(client, priority)]


def _waiting_lists(client: redis.Redis) -> list[bytes]:
    return sorted(client.scan_iter("evascore:waiting:*", count=1000))


def _fetched_messages(client: redis.Redis) -> list[bytes]:
    """The messages that workers hold, in the form of the queue."""
    names = [keys.unacked(f"{name}@test") for name in WORKERS]
    stored = [value for name in names for value in client.hvals(name)]
    return [value[1:].rpartition(b', "", "')[0] for value in stored]


def _some_job(client: redis.Redis, generator: random.Random) -> str:
    """The ID of a job that waits or is being scored."""
    found = [task_id.decode() for task_id in client.hkeys(keys.LIVE_JOBS)]
    if not found:
        raise Missed
    return generator.choice(sorted(found))


def _submit_unread(world: World, url: str, generator: random.Random) -> None:
    text = generator.choice(world.texts["other"])
    key, submitted_at = f"{generator.getrandbits(64):x}", now()
    with suppress(httpx.TransportError):
        headers = {"Idempotency-Key": key}
        answer = httpx.post(f"{url}/score", json={"text": text}, headers=headers, timeout=20)
        if answer.status_code in (200, 202):
            fields = {"text": text}
            world.history.accept(
                Entry(
                    str(answer.json()["id"]), "unread", "", "", None, [fields], True, submitted_at
                )
            )
    time.sleep(0.05)
