"""Clients that are shared with forked processes, sent to other ones, or used in a second loop."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

import evascore
from contract.settings import REPOSITORY
from tests.conftest import HANG_S
from tests.service import Service

SCRIPT_S = HANG_S
# Python 3.12 warns of every fork in a process with threads; that is what is tested here.
PYTHON = (sys.executable, "-W", "ignore::DeprecationWarning")


class Echo(BaseHTTPRequestHandler):
    """Answers each GET with the port that it came from, and keeps the connection open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer as JSON."""
        body = json.dumps({"port": self.client_address[1]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """The URL of a server that tells connections apart."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def run_script(script: str, *arguments: str) -> list[str]:
    """Run a program that uses the client; the lines that it printed."""
    ran = subprocess.run(
        [*PYTHON, "-c", script, *arguments],
        cwd=REPOSITORY / "client",
        capture_output=True,
        text=True,
        timeout=SCRIPT_S,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


# --- connections ----------------------------------------------------------------------------------

FORKED = """
import asyncio, json, os, sys, httpx, evascore
from evascore.http import transport

# The connection of the parent must outlast its child, on a busy machine too.
transport.LIMITS = httpx.Limits(keepalive_expiry=600)
loops = asyncio.Runner()
client = getattr(evascore, sys.argv[2])(sys.argv[1])

def port():
    if sys.argv[2] == "Client":
        return client.get("/")["port"]
    return (asyncio.run if os.getpid() != parent else loops.run)(client.get("/"))["port"]

def in_child():
    reading, writing = os.pipe()
    if not os.fork():
        # A grandchild, too.
        mine = [port(), port(), in_child() if depth.pop() else None]
        os.write(writing, json.dumps(mine).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    return json.loads(os.read(reading, 1000))

parent, depth = os.getpid(), [0, 1]
print(json.dumps([port(), in_child(), port()]))
"""


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_forked_process_opens_connections_of_its_own(echo, kind):
    (reply,) = run_script(FORKED, echo, kind)
    before, (child, _, (grandchild, *_)), after = json.loads(reply)
    assert before == after
    assert len({before, child, grandchild}) == 3


def test_process_keeps_its_connection_from_call_to_call(echo):
    with evascore.Client(echo) as client:
        assert client.get("/") == client.get("/")


GIVEN = """
import asyncio, os, sys, httpx, evascore

kind, is_used = sys.argv[2], sys.argv[3] == "used"
http = {"Client": httpx.Client, "AsyncClient": httpx.AsyncClient}[kind]()
client = getattr(evascore, kind)(sys.argv[1], http=http)

def call():
    return client.get("/") if kind == "Client" else asyncio.run(client.get("/"))

if is_used:
    call()
if os.fork():
    os.wait()
else:
    try:
        call()
        print("ok")
    except evascore.ClientNotUsable as error:
        print(error)
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_http_client_of_the_caller_is_refused_after_a_fork_if_it_was_used(echo, kind):
    assert run_script(GIVEN, echo, kind, "unused") == ["ok"]
    (reply,) = run_script(GIVEN, echo, kind, "used")
    assert reply.startswith("The httpx client given as http= was used before")


USED_BY_ITS_OWNER = """
import os, sys, httpx, evascore

http = httpx.Client()
client = evascore.Client(sys.argv[1], http=http)
http.get(sys.argv[1])
if os.fork():
    os.wait()
else:
    try:
        client.get("/")
    except evascore.ClientNotUsable as error:
        print(error, flush=True)
    os._exit(0)
"""


def test_http_client_that_its_owner_used_before_a_fork_is_refused(echo):
    (reply,) = run_script(USED_BY_ITS_OWNER, echo)
    assert reply.startswith("The httpx client given as http= was used before")


CLOSED_IN_CHILD = """
import os, sys, evascore

with evascore.Client(sys.argv[1]) as client:
    before = client.get("/")
    pid = os.fork()
    if pid:
        assert os.wait()[1] == 0
        assert client.get("/") == before
if not pid:
    os._exit(0)
try:
    client.get("/")
except RuntimeError as error:
    print(error)
"""


def test_child_that_closes_its_client_leaves_the_parents_open(echo):
    assert run_script(CLOSED_IN_CHILD, echo) == ["This client is closed; make a new one."]


LOCKED = """
import os, sys, evascore

client = evascore.Client(sys.argv[1])
client.get("/")
# A thread is in the middle of a call when the process is forked.
lock = client._operations.reading._lock.get()
lock.acquire()
if os.fork():
    os.wait()
else:
    client.get("/")
    print("ok", flush=True)
    os._exit(0)
"""


def test_fork_in_the_middle_of_another_threads_call_locks_nothing(echo):
    assert run_script(LOCKED, echo) == ["ok"]


# --- scores ---------------------------------------------------------------------------------------

POOLS = """
import concurrent.futures, multiprocessing, os, sys, evascore

client = evascore.Client(sys.argv[1])

def score(n):
    return client.score("b" * n).num_bytes

def many(n):
    return next(iter(client.score_many(["b" * n]))).num_bytes

def continuations(n):
    return client.score_continuations("a", ["b" * n])[0].num_bytes

def job(n):
    return client.wait(client.submit("b" * n)).score().num_bytes

def batch(n):
    (line,) = client.batch_results(client.submit_batch(["b" * n]))
    return line.outcome.num_bytes

if __name__ == "__main__":
    client.score("warm")
    sizes, fork = list(range(1, 25)), multiprocessing.get_context("fork")
    for work in (score, many, continuations, job, batch):
        with fork.Pool(4) as pool:
            print(work.__name__, pool.map(work, sizes, chunksize=1) == sizes)
        assert work(3) == 3
    with concurrent.futures.ProcessPoolExecutor(4, fork) as pool:
        print("executor", list(pool.map(score, sizes)) == sizes)
"""


def test_forked_pools_get_the_scores_of_their_own_texts(scoring: Service):
    assert [line.partition(" ")[2] for line in run_script(POOLS, scoring.url)] == ["True"] * 6


ITERATED = """
import os, sys, evascore

client = evascore.Client(sys.argv[1])
scores = client.score_many("b" * n for n in range(1, 200))
print(next(scores).num_bytes, flush=True)
if not os.fork():
    try:
        for _ in scores:
            pass
    except evascore.ClientNotUsable as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
print(next(scores).num_bytes)
scores.close()
"""


def test_score_many_of_a_parent_process_is_refused_in_its_child(scoring: Service):
    first, refusal, second = run_script(ITERATED, scoring.url)
    assert (first, second) == ("1", "2")
    assert refusal.startswith("This score_many was begun before the process was forked")


SENT = """
import concurrent.futures, multiprocessing, sys, evascore

def score(client, text):
    return client.score(text).num_bytes

if __name__ == "__main__":
    client = evascore.Client(sys.argv[1], timeout_s=60)
    client.score("warm")
    with concurrent.futures.ProcessPoolExecutor(
        2, multiprocessing.get_context(sys.argv[2])
    ) as pool:
        print([pool.submit(score, client, "b" * n).result() for n in (1, 2, 3)])
        try:
            pool.submit(score, client, "").result()
        except evascore.EmptyText as error:
            print(error.type, error.status, bool(error.request_id))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_client_and_its_errors_cross_processes(scoring: Service, method, tmp_path):
    # Processes that do not fork import the program from a file.
    program = tmp_path / "program.py"
    program.write_text(SENT)
    ran = subprocess.run(
        ["env", f"PYTHONPATH={REPOSITORY / 'client'}", *PYTHON, program, scoring.url, method],
        capture_output=True,
        text=True,
        timeout=SCRIPT_S,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("[1, 2, 3]\nempty_text 422 True\n", "")


# --- pickles --------------------------------------------------------------------------------------

COPIES = {
    "pickle": lambda client: pickle.loads(pickle.dumps(client)),  # noqa: S301 - our own bytes
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", [evascore.Client, evascore.AsyncClient])
def test_copy_of_a_client_has_its_settings(kind, copied):
    client = kind("http://a.test:1/x/", timeout_s=5, patience_s=6, model="demo")
    again = copied(client)
    assert type(again) is kind
    assert (str(again.url), again.model) == ("http://a.test:1/x", "demo")
    assert (again.timeout_s, again.patience_s) == (5, 6)


def test_key_of_the_shell_stays_out_of_the_pickle(monkeypatch):
    monkeypatch.setenv("EVASCORE_API_KEY", "canary")
    assert b"canary" not in pickle.dumps(evascore.Client("http://a.test"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"api_key": "canary"}, "an api_key"),
        ({"headers": {"X-Key": "canary"}}, "headers"),
        ({"url": "http://name:canary@a.test"}, "a password"),
        ({"http": httpx.Client()}, "an httpx client of its own"),
    ],
)
def test_client_with_secrets_or_connections_says_to_make_it_in_the_process(options, complaint):
    client = evascore.Client(**{"url": "http://a.test", **options})
    with pytest.raises(TypeError, match=complaint) as raised:
        pickle.dumps(client)
    assert "make the client in the process that uses it" in str(raised.value)
    assert "canary" not in str(raised.value)


# --- event loops ----------------------------------------------------------------------------------


def test_asynchronous_client_works_in_one_loop_after_another(scoring: Service):
    client = evascore.AsyncClient(scoring.url)

    async def use(size: int) -> list[int]:
        many = [score.num_bytes async for score in client.score_many(["b" * size] * 40)]
        return [(await client.score("b" * size)).num_bytes, *many]

    for size in (1, 2, 3):
        assert asyncio.run(use(size)) == [size] * 41
    asyncio.run(client.close())
    with pytest.raises(evascore.ClientNotUsable, match="closed"):
        asyncio.run(use(1))


def test_asynchronous_client_works_in_loops_of_several_threads(scoring: Service):
    client = evascore.AsyncClient(scoring.url)
    found: dict[int, list[int]] = {}

    async def use(size: int) -> list[int]:
        return [(await client.score("b" * size)).num_bytes for _ in range(5)]

    def in_thread(size: int) -> None:
        found[size] = asyncio.run(use(size))

    threads = [threading.Thread(target=in_thread, args=(size,)) for size in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {size: [size] * 5 for size in (1, 2, 3, 4)}


def test_http_client_of_the_caller_is_refused_in_a_second_loop():
    async def use() -> dict[str, int]:
        return await client.get("/")

    without_sockets = httpx.MockTransport(lambda _: httpx.Response(200, json={}))
    http = httpx.AsyncClient(transport=without_sockets)
    client = evascore.AsyncClient("http://a.test", http=http)
    asyncio.run(use())
    with pytest.raises(evascore.ClientNotUsable, match="another event loop"):
        asyncio.run(use())


OLD_LOOP = """
import asyncio, os, sys, evascore

client, loop = evascore.AsyncClient(sys.argv[1]), asyncio.new_event_loop()
loop.run_until_complete(client.get("/"))
if not os.fork():
    try:
        loop.run_until_complete(client.get("/"))
    except evascore.ClientNotUsable as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
loop.run_until_complete(client.get("/"))
loop.run_until_complete(client.close())
loop.close()
"""


def test_event_loop_of_a_parent_process_is_refused_in_its_child(echo):
    (reply,) = run_script(OLD_LOOP, echo)
    assert reply.startswith("This event loop was made before the process was forked")
