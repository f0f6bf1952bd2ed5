"""`make run`: runs Redis, web server and worker on this machine until Ctrl-C."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from contract.core_dumps import forbid_core_dumps
from contract.keys_file import check_keys_file
from contract.logs import configure_logging
from contract.settings import Settings, SettingsInvalid, load_settings
from deploy.disk_guard import guard, options_for
from deploy.embedded_redis import (
    memory_limit,
    place_for_socket,
    remove_unfinished_rewrites,
    server_command,
)
from deploy.supervisor import Program, ProgramFailed, Supervisor

# Time that a process needs to end, besides draining.
EXIT_S = 10.0
REDIS_POLL_S = 0.02
READY_POLL_S = 0.2
EXAMPLE = '{"text": "The quick brown fox jumps over the lazy dog."}'


class CannotStart(Exception):
    """Something on this machine prevents the start; the message is one line with the remedy."""


def main() -> int:
    """Run everything in the foreground.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 130 after a second Ctrl-C, 1 when something could
        not start, 2 for a bad setting, 78 when the worker refuses its checkpoint.
    """
    try:
        settings = load_settings()
        check_keys_file(settings)
        configure_logging(settings.log_level, "supervisor")
        _check_port_is_free(settings)
        forbid_core_dumps()
        # Others on this machine read nothing that is written from here on.
        os.umask(0o077)
        with _held(settings.data_dir) if settings.redis_url is None else nullcontext() as server:
            return asyncio.run(_run(settings, server))
    except SettingsInvalid as error:
        return _refuse(error, 2)
    except CannotStart as error:
        return _refuse(error, 1)
    except ProgramFailed as error:
        return _refuse(error, os.EX_CONFIG if error.exit_code == os.EX_CONFIG else 1)


def _refuse(error: Exception, exit_code: int) -> int:
    print(f"evascore: {error}", file=sys.stderr)
    return exit_code


async def _run(settings: Settings, server: Path | None) -> int:
    supervisor = Supervisor()
    supervisor.handle_signals()
    starting = asyncio.create_task(_start(supervisor, settings, server))
    try:
        await supervisor.ended
        print(
            "evascore stops: it finishes the running micro-batch and keeps waiting jobs.",
            flush=True,
        )
    finally:
        starting.cancel()
        await supervisor.stop()
    return 130 if supervisor.is_hurried.is_set() else 0


async def _start(supervisor: Supervisor, settings: Settings, server: Path | None) -> None:
    """Start all programs in the order of their needs, and say when they are ready.

    Args:
        server: Unix socket of the Redis to start; None for one that runs already. Without
            EVASCORE_REDIS_URL, web server and workers find the socket by the data folder.
    """
    guarding = None
    if server is not None:
        supervisor.start(_redis(settings, server))
        await _until_open(server)
        guarding = asyncio.create_task(guard(settings.data_dir, server))
    supervisor.start(_web(settings))
    workers = _workers(settings)
    for worker in workers:
        supervisor.start(worker)
    await _until_ready(settings, len(workers))
    supervisor.has_been_ready = True
    print(_ready_line(settings), flush=True)
    if guarding is not None:
        await guarding


def _redis(settings: Settings, server: Path) -> Program:
    def command() -> list[str]:
        remove_unfinished_rewrites(settings.data_dir)
        return server_command(
            data_dir=settings.data_dir,
            server=server,
            options=options_for(settings.data_dir),
            maxmemory_bytes=memory_limit(settings),
        )

    return Program("Redis server", command, EXIT_S, is_killed_when_hurried=False)


def _web(settings: Settings) -> Program:
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
    return Program("web server", command, settings.drain_s + EXIT_S)


def worker_command(settings: Settings) -> list[str]:
    """Command line of a worker; its container runs the same."""
    return [
        *(sys.executable, "-m", "celery", "--quiet", "-A", "worker.main", "worker"),
        # Solo: the model lives in this one process, and a forked one could not use CUDA.
        *("-P", "solo", "-c", "1", "-n", f"{settings.worker_name}@%h"),
        # Messages between workers would come over the connection that fetches jobs.
        *("--without-gossip", "--without-mingle"),
    ]


def _workers(settings: Settings) -> list[Program]:
    """One worker for each device; several have numbers behind their names."""
    # OpenMP threads that spin between two operators would take the cores from the web server.
    environment = {"OMP_WAIT_POLICY": "passive"}
    devices, stop_s = settings.worker_devices, settings.drain_s + EXIT_S
    if len(devices) == 1:
        environment["EVASCORE_DEVICE"] = devices[0]
        return [Program("worker", worker_command(settings), stop_s, environment)]
    # Workers on the CPU share its cores instead of each taking all of them.
    num_threads = max((os.cpu_count() or 1) // max(devices.count("cpu"), 1), 1)
    programs = []
    for number, device in enumerate(devices):
        name = f"{settings.worker_name}-{number}"
        own = {"EVASCORE_DEVICE": device, "EVASCORE_WORKER_NAME": name}
        if device == "cpu":
            own["OMP_NUM_THREADS"] = str(num_threads)
        command = worker_command(settings.model_copy(update={"worker_name": name}))
        programs.append(Program(f"worker of {device}", command, stop_s, {**environment, **own}))
    return programs


def _ready_line(settings: Settings) -> str:
    url = f"http://{settings.model_copy(update={'host': _local_host(settings)}).bind}"
    headers = "-H 'Content-Type: application/json' -H 'Prefer: wait=10'"
    return f"""evascore is ready at {url} - try: curl {url}/score {headers} -d '{EXAMPLE}'"""


def _local_host(settings: Settings) -> str:
    """The address at which this machine itself reaches the web server."""
    # Nothing is bound here.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104


def _check_port_is_free(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        # As the web server does. Otherwise the port of an earlier run would count as in use.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise CannotStart(
                f"port {settings.port} of {settings.host} cannot be used ({error.strerror}); "
                "stop the program that uses it, or choose another port with EVASCORE_PORT"
            ) from None


@contextmanager
def _held(data_dir: Path) -> Iterator[Path]:
    """Make the data folder private to this user, and lock it against other runs.

    Yields the path of a Unix socket for the Redis of this run.
    """
    with ExitStack() as held:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            data_dir.chmod(0o700)
            held.enter_context(FileLock(data_dir / "lock", blocking=False))
            server = held.enter_context(place_for_socket(data_dir))
        except Timeout:
            raise CannotStart(
                f"the data folder {data_dir} is in use by another run; "
                "stop that run or choose another folder with EVASCORE_DATA_DIR"
            ) from None
        except OSError as error:
            raise CannotStart(
                f"the data folder {data_dir} cannot be written ({error.strerror}); "
                "choose another folder with EVASCORE_DATA_DIR"
            ) from None
        yield server


async def _until_open(server: Path) -> None:
    while not await _pong(server):
        await asyncio.sleep(REDIS_POLL_S)


async def _pong(server: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(server)
        writer.write(b"PING\r\n")
        answer = await reader.readline()
        writer.close()
        return bool(answer)
    except OSError:
        return False


async def _until_ready(settings: Settings, num_workers: int) -> None:
    """Wait until the service is ready, and every worker is."""
    address = _local_host(settings), settings.port
    while b" 200 " not in await _ask(*address, _get("/readyz")):
        await asyncio.sleep(READY_POLL_S)
    while num_workers > 1 and await _num_ready(*address) < num_workers:
        await asyncio.sleep(READY_POLL_S)


async def _num_ready(host: str, port: int) -> int:
    """How many workers are ready, as `/readyz` tells it, which needs no API key."""
    _, _, body = (await _ask(host, port, _get("/readyz"), whole=True)).partition(b"\r\n\r\n")
    return int(json.loads(body).get("ready_workers", 0)) if body else 0


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


async def _ask(host: str, port: int, request: bytes, *, whole: bool = False) -> bytes:
    """The first line of the answer at this address, or all of it; empty without an answer."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        answer = await (reader.read() if whole else reader.readline())
        writer.close()
        return answer
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
