"""`make run`: runs Redis, web server and worker on this machine until Ctrl-C."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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
from deploy.model_check import ModelRefused, check_model
from deploy.report import Report, report_for
from deploy.supervisor import Program, ProgramFailed, Supervisor

# Time that a process needs to end, besides draining.
EXIT_S = 10.0
REDIS_POLL_S = 0.02
READY_POLL_S = 0.2
# A large model loads for minutes, and then a second more does not matter.
MAX_READY_POLL_S = 1.0
READY_POLL_GROWTH = 1.1
REFRESH_S = 0.25
# A worker that ends with 78 after the service was ready lacks a GPU or memory that it had before.
# It may get it back. Each try costs some seconds of a core.
REFUSAL_PAUSE_S = 60.0


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
        check_model(settings.model)
        forbid_core_dumps()
        # Others on this machine read nothing that is written from here on.
        os.umask(0o077)
        with _held(settings.data_dir) if settings.redis_url is None else nullcontext() as server:
            return asyncio.run(_run(settings, server))
    except SettingsInvalid as error:
        return _refuse(error, 2)
    except CannotStart as error:
        return _refuse(error, 1)
    except ModelRefused as error:
        return _refuse(error, os.EX_CONFIG)
    except ProgramFailed as error:
        return _refuse(error, os.EX_CONFIG if error.exit_code == os.EX_CONFIG else 1)


def _refuse(error: Exception, exit_code: int) -> int:
    print(f"evascore: {error}", file=sys.stderr)
    return exit_code


async def _run(settings: Settings, server: Path | None) -> int:
    supervisor, report = Supervisor(), report_for(settings)
    configure_logging(settings.log_level, "supervisor", report.reader_of("supervisor"))
    supervisor.handle_signals()
    tasks = [
        asyncio.create_task(_start(supervisor, report, settings, server)),
        asyncio.create_task(_refresh(report)),
    ]
    try:
        await supervisor.ended
        report.stopping()
    except ProgramFailed as error:
        # Once all programs have ended, their last lines are known.
        await supervisor.stop()
        reason = report.last_words(error.program.name)
        raise ProgramFailed(error.program, error.exit_code, reason) from None
    finally:
        for task in tasks:
            task.cancel()
        await supervisor.stop()
        report.close()
    return 130 if supervisor.is_hurried.is_set() else 0


async def _refresh(report: Report) -> None:
    while True:
        await asyncio.sleep(REFRESH_S)
        report.refresh()


async def _start(
    supervisor: Supervisor, report: Report, settings: Settings, server: Path | None
) -> None:
    """Start all programs in the order of their needs, and say when they are ready.

    Args:
        server: Unix socket of the Redis to start; None for one that runs already. Without
            EVASCORE_REDIS_URL, web server and workers find the socket by the data folder.
    """
    guarding = None
    report.begin("Redis")
    if server is not None:
        supervisor.start(_read(_redis(settings, server), report))
        await _until_open(server)
        report.done("Redis", f"in {settings.data_dir}")
        guarding = asyncio.create_task(guard(settings.data_dir, server))
    report.begin("web")
    supervisor.start(_read(_web(settings), report))
    workers = _workers(settings)
    report.begin("model")
    for worker in workers:
        supervisor.start(_read(worker, report))
    await _until_web_answers(settings)
    report.done("web", f"at {settings.bind}")
    if server is None:
        await _until_redis_answers(settings)
        report.done("Redis", "of EVASCORE_REDIS_URL")
    await _until_ready(settings, len(workers))
    supervisor.has_been_ready = True
    report.done("model", settings.served_name)
    url = _url(settings)
    report.ready(url, has_keys=settings.auth == "keys")
    if guarding is not None:
        await guarding


def _read(program: Program, report: Report) -> Program:
    """The program with its lines going through the report, if the report reads them."""
    return replace(program, on_line=report.reader_of(program.name))


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


def worker_command() -> list[str]:
    """Command line of a worker; its container runs the same. EVASCORE_WORKER_NAME names it."""
    return [
        *(sys.executable, "-m", "celery", "--quiet", "-A", "worker.main", "worker"),
        # Solo: the model lives in this one process, and a forked one could not use CUDA.
        *("-P", "solo", "-c", "1"),
        # Messages between workers would come over the connection that fetches jobs.
        *("--without-gossip", "--without-mingle"),
    ]


def _workers(settings: Settings) -> list[Program]:
    """One worker for each device; several have numbers behind their names."""
    # OpenMP threads that spin between two operators would take the cores from the web server. The
    # second variable is explained in docs/gpu.md, "Memory of weights and passes".
    environment = {
        "OMP_WAIT_POLICY": "passive",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    devices = settings.worker_devices
    if len(devices) == 1:
        environment["EVASCORE_DEVICE"] = devices[0]
        return [_worker("worker", settings, environment)]
    # Workers on the CPU share its cores instead of each taking all of them.
    num_threads = max((os.cpu_count() or 1) // max(devices.count("cpu"), 1), 1)
    programs = []
    for number, device in enumerate(devices):
        name = f"{settings.worker_name}-{number}"
        own = {"EVASCORE_DEVICE": device, "EVASCORE_WORKER_NAME": name}
        if device == "cpu":
            own["OMP_NUM_THREADS"] = str(num_threads)
        programs.append(_worker(f"worker of {device}", settings, {**environment, **own}))
    return programs


def _worker(name: str, settings: Settings, environment: dict[str, str]) -> Program:
    return Program(
        name,
        worker_command(),
        settings.drain_s + EXIT_S,
        environment,
        refusal_pause_s=REFUSAL_PAUSE_S,
    )


def _url(settings: Settings) -> str:
    """The URL at which this machine itself reaches the web server."""
    return f"http://{settings.model_copy(update={'host': _local_host(settings)}).bind}"


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


async def _until_web_answers(settings: Settings) -> None:
    while (await _ask(settings, "/healthz")).status != 200:
        await asyncio.sleep(READY_POLL_S)


async def _until_redis_answers(settings: Settings) -> None:
    while (await _ask(settings, "/readyz")).body.get("type") == "broker_unavailable":
        await asyncio.sleep(MAX_READY_POLL_S)


async def _until_ready(settings: Settings, num_workers: int) -> None:
    """Wait until the service is ready, and every worker is; asks less and less often."""
    pause_s = READY_POLL_S
    while (await _ask(settings, "/readyz")).body.get("ready_workers", 0) < num_workers:
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * READY_POLL_GROWTH, MAX_READY_POLL_S)


class _Answer(NamedTuple):
    """What a route of the service answered; status 0 for no answer."""

    status: int
    body: dict[str, Any]


async def _ask(settings: Settings, path: str) -> _Answer:
    """The answer of a route that needs no API key."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        reader, writer = await asyncio.open_connection(_local_host(settings), settings.port)
        writer.write(request.encode())
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return _Answer(int(head.split()[1]), json.loads(body))
    except (OSError, ValueError, IndexError):
        # The web server is starting, or being started again.
        return _Answer(0, {})


if __name__ == "__main__":
    sys.exit(main())
