"""Implements `evascore get`, `evascore status` and `evascore cancel`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

from evascore.cli.common import (
    REFUSED,
    URL,
    AsJson,
    Headers,
    Url,
    connect,
    say,
    show_json,
    show_table,
)
from evascore.errors import Forbidden, JobNotFound
from evascore.results import Batch, Job
from evascore.sync import Client

TaskId = Annotated[str, typer.Argument(help="ID of a job or of a batch.", show_default=False)]


def get(
    task_id: TaskId,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Wait up to this many seconds for the end.")
    ] = 0,
    url: Url = URL,
    headers: Headers = None,
    as_json: AsJson = False,
) -> int:
    """Print the results of a job or a batch as JSON lines, one for each text.

    Without results, its state goes to stderr and the exit status is 1.
    """
    with connect(url, headers) as client:
        found = _read(client, task_id)
        if wait_s and not found.is_final:
            found = _waited(client, found, wait_s)
        if isinstance(found, Batch):
            for line in client.batch_results(found) if found.is_final else ():
                show_json(line.raw)
        elif found.state == "SUCCESS":
            result = found.raw["result"]
            for item in result.get("items", [result]):
                show_json(item)
    if _state(found) in ("SUCCESS", "completed"):
        return 0
    say(f"{task_id} is {_state(found)}.")
    return REFUSED


def status(
    task_id: Annotated[
        str | None,
        typer.Argument(help="ID of a job or of a batch; without it, the service itself."),
    ] = None,
    url: Url = URL,
    headers: Headers = None,
    as_json: AsJson = False,
) -> None:
    """Print the state of the service, of a job or of a batch."""
    with connect(url, headers) as client:
        found = client.get("/stats") if task_id is None else dict(_read(client, task_id).raw)
    if task_id is not None:
        # The results are what `get` prints.
        found.pop("result", None)
    if as_json:
        show_json(found)
    else:
        show_table(_of_service(found) if task_id is None else _of_task(found))


def cancel(
    task_id: TaskId, url: Url = URL, headers: Headers = None, as_json: AsJson = False
) -> None:
    """Cancel a job or a batch that has not ended; scores that exist stay readable."""
    with connect(url, headers) as client:
        found = _either(client.cancel, client.cancel_batch, task_id)
    show_json(found.raw) if as_json else show_table(_of_task(found.raw))


def _read(client: Client, task_id: str) -> Job | Batch:
    return _either(client.job, client.batch, task_id)


def _either(
    of_job: Callable[[str], Job], of_batch: Callable[[str], Batch], task_id: str
) -> Job | Batch:
    """What a call answers for the job of this ID, or for the batch.

    Raises:
        JobNotFound: there is neither.
        Forbidden: the API key may not read the one that it can be.
    """
    refusal: Forbidden | None = None
    try:
        return of_job(task_id)
    except JobNotFound:
        pass
    except Forbidden as error:
        # A key with the scope `bulk` alone reads batches.
        refusal = error
    try:
        return of_batch(task_id)
    except JobNotFound as error:
        if refusal is not None:
            raise refusal from None
        detail = "No job or batch has this ID; check it for typing errors."
        raise JobNotFound({**error.problem, "detail": detail}) from None


def _waited(client: Client, found: Job | Batch, wait_s: float) -> Job | Batch:
    if isinstance(found, Batch):
        return client.wait_batch(found, timeout_s=wait_s)
    return client.wait(found, timeout_s=wait_s)


def _state(found: Job | Batch) -> str:
    return found.status if isinstance(found, Batch) else found.state


def _of_task(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of the fields that are plain, and the error."""
    for name, value in found.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            yield name, str(value)
    counts = found.get("request_counts", {})
    yield from ((f"lines {name}", f"{count:,}") for name, count in counts.items())
    if found.get("error"):
        yield "error", f"{found['error'].get('type')}: {found['error'].get('detail')}"


def _of_service(stats: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    workers = stats.get("workers", [])
    names = ", ".join(f"{worker['name']} ({worker['state']})" for worker in workers)
    yield "workers", names or "none"
    for group in ("queue", "batches"):
        for name, value in stats.get(group, {}).items():
            if isinstance(value, int | float):
                yield f"{group}: {name.replace('_', ' ')}", f"{value:,}"
