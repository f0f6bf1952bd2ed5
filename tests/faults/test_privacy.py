"""Marker texts go through every route and failure; after EVASCORE_FORGET_S nothing has them.

Each way has two markers, one in the text and one in the `custom_id`. Files, log, keys of Redis, its
slow log, `/metrics`, `/stats`, backups, and logs and files of the edge are searched.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import httpx
import orjson
import pytest
import redis
import zstandard

from contract import keys
from contract.settings import REDIS_SOCKET, REPOSITORY
from deploy.embedded_redis import free_port
from tests.conftest import HANG_S, wait_until
from tests.edge import NGINX, Edge, edge
from tests.faults.test_dying_worker import is_aboard
from tests.patient_client import PatientClient
from tests.service import COMMAND, Service

FORGET_S = 4
# Long enough for a text to be scored, and then to be read and backed up, on a busy machine.
RESULT_TTL_S = 30
# Deadlines nest: none may be longer than results are kept.
TIMES = {
    "forget_s": FORGET_S,
    "result_ttl_s": RESULT_TTL_S,
    "max_deadline_s": RESULT_TTL_S,
    "deadline_s": RESULT_TTL_S,
    "max_upload_deadline_s": RESULT_TTL_S,
    "micro_batch_timeout_s": RESULT_TTL_S,
    "completion_wait_s": RESULT_TTL_S,
    "web_timeout_s": 20,
    "max_wait_s": 20,
    "drain_s": 5,
    "lease_s": 3,
}
JSON = {"Content-Type": "application/json"}
PLAIN = {"Content-Type": "text/plain"}
NDJSON = {"Content-Type": "application/x-ndjson"}


class Markers:
    """Makes words that occur nowhere else, and finds them again."""

    def __init__(self) -> None:
        self.made: list[bytes] = []

    def line(self, way: str, size: int = 0) -> dict[str, Any]:
        """A line with a marker in its text and one in its `custom_id`."""
        text, custom_id = f"Quokkatext-{way}", f"Quokkaid-{way}"
        self.made += [text.encode(), custom_id.encode()]
        return {"text": f"{text} {'x' * size}", "custom_id": custom_id}

    def items(self, way: str, size: int = 0) -> dict[str, Any]:
        """A request with such a line."""
        return {"items": [self.line(way, size)]}

    def found_in(self, content: bytes) -> set[bytes]:
        """The markers that `content` has, also within frames of zstd or as base64."""
        parts = [content, *map(unpacked, frames(content))]

        def has(marker: bytes) -> bool:
            # Completions store whole prompts so.
            return any(marker in part or b64encode(marker) in part for part in parts)

        return set(filter(has, self.made))


def frames(content: bytes) -> Iterator[bytes]:
    """What follows each place where a frame of zstd may begin."""
    at = content.find(zstandard.FRAME_HEADER)
    while at >= 0:
        yield content[at:]
        at = content.find(zstandard.FRAME_HEADER, at + 1)


def unpacked(frame: bytes) -> bytes:
    """The content of a frame of zstd, b"" if it is none."""
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(frame)
    except zstandard.ZstdError:
        return b""


class ServiceOnASmallDisk(Service):
    """`make run` with a data folder that is a file system of its own.

    Only its own processes see it, since mounting it for all would need an administrator.
    """

    NAMESPACE: ClassVar = ["unshare", "--map-root-user", "--mount"]
    MOUNT = 'mount -t tmpfs -o size=128m,mode=700 tmpfs "$EVASCORE_DATA_DIR" && exec "$@"'

    @classmethod
    def is_possible(cls) -> bool:
        """Whether this machine lets its users mount."""
        if sys.platform != "linux":
            return False
        tried = [*cls.NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(tried, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def start(self, command: Any = COMMAND, timeout_s: float = HANG_S) -> Service:
        """Mount the disk, and start on it."""
        self.data_dir.mkdir()
        return super().start([*self.NAMESPACE, "sh", "-c", self.MOUNT, "sh", *command], timeout_s)

    @property
    def files(self) -> Path:
        """The data folder as its processes see it."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{self.data_dir}")

    def redis(self) -> redis.Redis:
        """A client of the embedded Redis."""
        self.part("redis")
        return redis.Redis(unix_socket_path=str(self.files / REDIS_SOCKET))

    def inside(self) -> list[str]:
        """Begins a command that is to see the disk."""
        assert self.process is not None
        target = ["--target", str(self.process.pid)]
        return ["nsenter", *target, "--user", "--mount", "--preserve-credentials"]

    def fill(self) -> Path:
        """Use all room of the disk; returns the file that takes it."""
        path = self.files / "filler"
        with path.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(2**16))
        return path


class ServiceInAFolder(Service):
    """`make run` where nothing can be mounted: its disk cannot be filled."""

    @property
    def files(self) -> Path:
        """The data folder."""
        return self.data_dir

    def inside(self) -> list[str]:
        """Begins a command that is to see the data folder."""
        return []


AnyService = ServiceOnASmallDisk | ServiceInAFolder


@pytest.fixture
def service(tmp_path) -> Iterator[AnyService]:
    """A service that forgets soon and logs everything."""
    kind = ServiceOnASmallDisk if ServiceOnASmallDisk.is_possible() else ServiceInAFolder
    service = kind(tmp_path, log_level="DEBUG", max_crashes=1, max_body_bytes=200_000, **TIMES)
    service.start()
    yield service
    service.stop()


@pytest.fixture
def nginx(service, tmp_path) -> Iterator[Edge | None]:
    """The edge before the service, where nginx is installed."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    if NGINX is None:
        yield None
        return
    with edge(service.url, folder) as running:
        yield running


@pytest.fixture
def client(service) -> Iterator[PatientClient]:
    with PatientClient(service.url) as client:
        yield client


def test_no_trace_is_left_of_a_text(service, client, nginx, tmp_path):
    markers, backups = Markers(), Backups(service, tmp_path / "backups")
    with service.redis() as server:
        # Compressed, a marker would not be recognized.
        server.config_set("rdbcompression", "no")
        server.acl_setuser("default", enabled=True, commands=["-bgrewriteaof"])
        score_and_refuse(client.http, markers)
        end_before_they_are_scored(service, client, markers)
        break_payload(service, client.http, server, markers)
        leave_to_expire(client.http, markers)
        fill_redis(client.http, server, markers)
        if nginx is not None:
            pass_the_edge(nginx, markers)
            fail_at_the_edge(tmp_path, markers)
        # While Redis is not allowed to rewrite its file, all are found there.
        stored = set(markers.made) - set(refused_at_once(markers))
        assert stored - found_in_files(service.files, markers) == set()
        server.acl_setuser("default", enabled=True, commands=["+bgrewriteaof"])
        back_up(backups, client.http, markers)
        if isinstance(service, ServiceOnASmallDisk):
            fill_disk(service, client.http, server, markers)
        die_while_scoring(service, client, server, markers)

    def is_forgotten() -> bool:
        # Keys that expired are gone once Redis has looked at them.
        return not found_in_files(service.files, markers)

    # A job that never ended is kept for its deadline and the TTL. The rest is for a busy machine.
    wait_until(is_forgotten, timeout_s=2 * RESULT_TTL_S + 2 * FORGET_S + 60, every_s=0.2)
    assert found_elsewhere(service, client.http, markers) == {}
    if nginx is not None:
        assert markers.found_in(nginx.files()) == set()
    # Those that are older than a moment expire when the next one is stored.
    assert backups.found(markers) != set()
    backups.take("--max-age-h", "0.0001")
    assert backups.found(markers) == set()


def score_and_refuse(http: httpx.Client, markers: Markers) -> None:
    """Score by each route; send what is refused."""
    for way in ("waited", "erased"):
        line = markers.items(way)
        job = http.post(
            "/score?wait=20", json=line, headers={"Idempotency-Key": f"Quokkakey-{way}"}
        )
        assert job.json().get("state") == "SUCCESS", job.text
        assert f"Quokkaid-{way}" in job.text
    assert http.delete(f"/score/{job.json()['id']}").status_code == 204
    markers.made += [b"Quokkakey-waited", b"Quokkatext-plain", b"Quokkatext-completion"]
    plain = http.post("/score?wait=20", content="Quokkatext-plain", headers=PLAIN)
    assert plain.json()["state"] == "SUCCESS"
    # Its events, too.
    assert http.get(f"/score/{plain.json()['id']}/events").status_code in (200, 204)
    prompt = {"model": "small", "prompt": "Quokkatext-completion", "max_tokens": 0}
    completion = http.post("/v1/completions", json={**prompt, "echo": True, "logprobs": 1})
    assert completion.status_code == 200
    lines = [markers.line(f"line{n}") for n in range(3)]
    batch = http.post("/batches", content=ndjson(*lines), headers=NDJSON).json()
    wait_until(lambda: http.get(f"/batches/{batch['id']}").json()["status"] == "completed")
    assert "Quokkaid-line2" in http.get(f"/batches/{batch['id']}/results").text
    assert http.delete(f"/batches/{batch['id']}").status_code == 204
    # Refused after its first lines were stored, and at once.
    good = [markers.line("refused0", 1000), *({"text": "y" * 1000} for _ in range(2000))]
    bad = http.post("/batches", content=ndjson(*good, {"text": 1}), headers=NDJSON)
    assert bad.status_code == 422
    unknown = {**markers.line("refused1"), "Quokkafield": 1}
    assert http.post("/score", json=unknown).status_code == 422
    assert http.post("/tokenize", json={"prompt": "Quokkatext-refused1"}).status_code == 200
    markers.made += [b"quokka-unstored-direct", b"quokka-unstored-asked"]
    assert http.get("/quokka-unstored-direct?quokka-unstored-asked=1").status_code == 404
    # The rest of a body whose length was misstated.
    markers.made.append(b"QUOKKA-UNSTORED")
    assert http.request("QUOKKA-UNSTORED", "/healthz").status_code == 405


def end_before_they_are_scored(service: Service, client: PatientClient, markers: Markers) -> None:
    """Cancel and erase jobs and batches that wait; let a deadline pass."""
    http = client.http
    worker = service.part("worker")
    worker.suspend()
    cancelled, erased = (client.submit(markers.items(way)) for way in ("cancelled", "unwanted"))
    expired = client.submit({**markers.items("late"), "deadline_s": 0.5})
    batches = [
        http.post("/batches", content=ndjson(markers.line(way)), headers=NDJSON).json()["id"]
        for way in ("batch0", "batch1")
    ]
    assert http.post(f"/score/{cancelled}/cancel").status_code == 200
    assert http.delete(f"/score/{erased}").status_code == 204
    assert http.post(f"/batches/{batches[0]}/cancel").status_code == 200
    assert http.delete(f"/batches/{batches[1]}").status_code == 204
    time.sleep(0.6)  # the time that the deadline is about
    worker.resume()
    assert client.ended(expired)["state"] == "REVOKED"


def die_while_scoring(
    service: Service, client: PatientClient, server: redis.Redis, markers: Markers
) -> None:
    """Kill the worker and Redis while a job is scored, which then fails as poison."""
    # Long enough to be met in the middle of, in several micro-batches.
    more = [{"text": "x" * 3_500}] * 30
    poison = client.submit({"items": [markers.line("poison", 3_500), *more]})
    wait_until(lambda: is_aboard(server, poison), every_s=0.002)
    service.part("worker").kill()
    service.part("redis").kill()
    # On a busy machine it may have expired by then.
    wait_until(lambda: has_ended(client.http.get(f"/score/{poison}")))
    server.connection_pool.disconnect()
    wait_until(lambda: answers(server))
    server.config_set("rdbcompression", "no")
    wait_until(lambda: client.http.get("/readyz").status_code == 200)


def has_ended(answer: httpx.Response) -> bool:
    return answer.status_code == 410 or answer.json().get("state") in ("FAILURE", "REVOKED")


def answers(server: redis.Redis) -> bool:
    try:
        return bool(server.ping())
    except redis.RedisError:
        return False


def break_payload(
    service: Service, http: httpx.Client, server: redis.Redis, markers: Markers
) -> None:
    """Break a payload, so that it becomes a dead letter."""
    worker = service.part("worker")
    worker.suspend()
    task_id = http.post("/score", json=markers.items("broken")).json()["id"]
    payload = server.get(keys.payload(task_id))
    server.set(keys.payload(task_id), payload[:-1], keepttl=True)
    worker.resume()
    wait_until(lambda: server.exists(keys.DEAD_LETTERS))


def leave_to_expire(http: httpx.Client, markers: Markers) -> None:
    """Score what nobody erases."""
    job = http.post("/score?wait=20", json=markers.items("kept")).json()
    assert job["state"] == "SUCCESS"
    markers.made += [b"Quokkatext-file", b"Quokkaid-file", b"Quokkadata-file"]
    body = {"model": "small", "prompt": "Quokkatext-file", "max_tokens": 0, "echo": True}
    line = {"custom_id": "Quokkaid-file", "method": "POST", "url": "/v1/completions", "body": body}
    form = {"data": {"purpose": "batch"}, "files": {"file": ("f", orjson.dumps(line))}}
    asked = {
        "input_file_id": http.post("/v1/files", **form).json()["id"],
        "endpoint": "/v1/completions",
        "completion_window": "24h",
        "metadata": {"note": "Quokkadata-file"},
    }
    batch = http.post("/v1/batches", json=asked).json()
    assert batch["metadata"] == asked["metadata"]
    wait_until(lambda: openai_batch_has_ended(http.get(f"/v1/batches/{batch['id']}")))


def openai_batch_has_ended(answer: httpx.Response) -> bool:
    return answer.status_code == 410 or answer.json()["status"] == "completed"


def fill_redis(http: httpx.Client, server: redis.Redis, markers: Markers) -> None:
    """Send a text to a Redis that is full."""
    maxmemory = server.config_get("maxmemory")["maxmemory"]
    server.config_set("maxmemory", "1mb")
    assert http.post("/score", json=markers.items("refused2")).status_code == 503
    server.config_set("maxmemory", maxmemory)


def pass_the_edge(nginx: Edge, markers: Markers) -> None:
    """Send markers through nginx: in bodies, an upload and every place of a head."""
    with httpx.Client(base_url=nginx.url, timeout=60) as http:
        job = http.post("/score?wait=20", json=markers.items("edge")).json()
        assert job["state"] == "SUCCESS"
        # Over the 64 kB that nginx keeps in memory.
        large = orjson.dumps(markers.items("edgelarge")) + b" " * 100_000
        assert http.post("/score", content=large, headers=JSON).status_code == 202
        line = ndjson(markers.line("edgebatch"))
        assert http.post("/batches", content=line, headers=NDJSON).status_code == 202
        for word in ("query", "path", "host", "header", "line", "metrics", "too-large"):
            markers.made.append(f"quokka-unstored-{word}".encode())
        unknown = http.post("/score?quokka-unstored-query=1", json={"text": "x"})
        assert unknown.status_code == 422
        assert http.get("/quokka-unstored-path").status_code == 404
        foreign = {"Host": "quokka-unstored-host.example"}
        refused = http.get("/quokka-unstored-path?quokka-unstored-query", headers=foreign)
        assert refused.status_code == 421
        assert http.get("/metrics?quokka-unstored-metrics").status_code == 404
        too_large = b"quokka-unstored-too-large" * 400_000
        assert http.post("/score", content=too_large, headers=PLAIN).status_code == 413
    bad_header = b"GET / HTTP/1.1\r\nHost: localhost\r\nquokka-unstored-header\r\n\r\n"
    for request in (bad_header, b"quokka-unstored-line\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", nginx.port)) as client:
            client.sendall(request)
            assert client.recv(100)
    cut_off_at_the_edge(nginx, markers)
    for status in (400, 404, 413, 421):
        wait_until(lambda status=status: f'"status":"{status}"'.encode() in nginx.logs())


def cut_off_at_the_edge(nginx: Edge, markers: Markers) -> None:
    """Hang up in the middle of a body that nginx keeps in a file."""
    begun = orjson.dumps(markers.items("unstored-cut")) + b" " * 100_000
    head = f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(begun) + 1}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", nginx.port)) as client:
        client.sendall(head.encode() + begun)
        if sys.platform == "linux":
            wait_until(lambda: markers.found_in(nginx.files()))


def fail_at_the_edge(folder: Path, markers: Markers) -> None:
    """Send a text to an edge whose web server is away."""
    alone = folder / "nginx-alone"
    alone.mkdir()
    with edge(f"http://127.0.0.1:{free_port()}", alone) as nginx:
        query = {"quokka-unstored-query": "1"}
        body = markers.items("unstored-away")
        assert httpx.post(f"{nginx.url}/score", params=query, json=body).status_code == 502
        # nginx logs a request after its client has the answer.
        wait_until(lambda: b'"status":"502"' in nginx.logs())
        assert markers.found_in(nginx.files()) == set()


class Backups:
    """Backups of a running service in a folder."""

    def __init__(self, service: AnyService, folder: Path) -> None:
        self._service, self._folder = service, folder
        folder.mkdir()

    def take(self, *options: str) -> None:
        """Take one more."""
        where = ["--redis-dir", str(self._service.data_dir), "--to", str(self._folder)]
        command = [sys.executable, "-P", "-m", "deploy.backup", "backup", *where, *options]
        taken = subprocess.run(
            # As deploy/state calls it; nsenter leaves the folder.
            [*self._service.inside(), "env", f"PYTHONPATH={REPOSITORY}", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert taken.returncode == 0, taken.stderr
        assert "may hold deleted texts" not in taken.stdout

    def found(self, markers: Markers) -> set[bytes]:
        """The markers in all of them."""
        found = markers.found_in(b"".join(map(os.fsencode, self._folder.rglob("*"))))
        for archive in self._folder.glob("redis-*.zst"):
            with tempfile.TemporaryDirectory() as unpacked:
                subprocess.run(["tar", "--extract", "--file", archive], cwd=unpacked, check=True)
                found |= found_in_files(Path(unpacked), markers)
        return found


def back_up(backups: Backups, http: httpx.Client, markers: Markers) -> None:
    """Take a backup: it has the results that can be read, and nothing that was deleted before."""
    deleted = {b"erased", b"unwanted", b"batch1", b"refused0", *(b"line%d" % n for n in range(3))}

    def has_kept() -> bool:
        # On a busy machine a result may expire before the backup is taken.
        job = http.post("/score?wait=20", json=markers.items("backup")).json()
        backups.take()
        found = backups.found(markers)
        assert not {marker for marker in found if marker.partition(b"-")[2] in deleted}
        return job["state"] == "SUCCESS" and b"Quokkaid-backup" in found

    wait_until(has_kept, timeout_s=HANG_S)


def fill_disk(
    service: ServiceOnASmallDisk, http: httpx.Client, server: redis.Redis, markers: Markers
) -> None:
    """Fill the disk while texts wait and are kept; rewrites fail until there is room again."""
    worker = service.part("worker")
    kept = http.post("/score?wait=20", json=markers.items("diskkept")).json()["id"]
    worker.suspend()
    assert http.post("/score", json=markers.items("diskwaiting")).status_code == 202
    filler = service.fill()
    wait_until(lambda: http.post("/score", json=markers.items("unstored3")).status_code == 503)
    line = ndjson(markers.line("unstored4"))
    assert http.post("/batches", content=line, headers=NDJSON).status_code == 503
    # On a busy machine it may have expired.
    assert http.delete(f"/score/{kept}").status_code in (503, 410)
    wait_until(lambda: rewrite_fails(server))
    filler.unlink()
    worker.resume()
    wait_until(lambda: http.post("/score", json=markers.items("diskafter")).status_code == 202)
    wait_until(lambda: http.delete(f"/score/{kept}").status_code in (204, 404, 410))


def rewrite_fails(server: redis.Redis) -> bool:
    # A web server may have begun one.
    with suppress(redis.ResponseError):
        server.bgrewriteaof()
    return server.info("persistence")["aof_last_bgrewrite_status"] == "err"


def ndjson(*lines: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def refused_at_once(markers: Markers) -> list[bytes]:
    """The markers that were never stored."""
    never = (b"refused1", b"refused2", b"Quokkakey", b"unstored", b"UNSTORED")
    return [marker for marker in markers.made if any(word in marker for word in never)]


def found_in_files(data_dir: Path, markers: Markers) -> set[bytes]:
    found: set[bytes] = set()
    for path in data_dir.rglob("*"):
        # A rewrite may delete a file meanwhile.
        if path.is_file():
            found |= contents(path.read_bytes, markers)
    return found


def contents(read: Callable[[], bytes], markers: Markers) -> set[bytes]:
    try:
        return markers.found_in(read())
    except FileNotFoundError:
        return set()


def found_elsewhere(
    service: Service, http: httpx.Client, markers: Markers
) -> dict[str, set[bytes]]:
    """The markers in each place other than files, if any."""
    with service.redis() as server:
        dumps = [name + (server.dump(name) or b"") for name in server.keys("*")]
        slow = server.slowlog_get()
    places = {
        "log": service.log.read_bytes(),
        "keys": b"\n".join(dumps),
        "slow log": repr(slow).encode(),
        "metrics": http.get("/metrics").content,
        "stats": http.get("/stats").content,
    }
    found = {place: markers.found_in(content) for place, content in places.items()}
    return {place: words for place, words in found.items() if words}
