"""Implements `evascore bench`, which measures latency and throughput under load."""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import httpx
import typer

from evascore.aio import AsyncClient
from evascore.cli.common import (
    SOME_FAILED,
    URL,
    USAGE,
    AsJson,
    CommandFailed,
    Headers,
    Model,
    Url,
    named_headers,
    say,
    show_json,
)
from evascore.http import transport
from evascore.measuring.load import Load, Measurement, describe, make_texts, measure
from evascore.measuring.plot import Point, latency_plot
from evascore.measuring.synthetic import Recipe

_COLUMNS = ("load", "texts", "errors", "texts/s", "kB/s", "p50 ms", "p95 ms", "p99 ms", "batch")


def command(
    clients: Annotated[
        str | None,
        typer.Option(
            help="Closed loop: number of clients, or a sweep such as 1,4,16.", show_default="16"
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Open loop: mean texts per second (Poisson process), or a sweep: 5,10,20."
        ),
    ] = None,
    duration_s: Annotated[
        float, typer.Option("--duration", min=0.1, help="Seconds to measure each load.")
    ] = 10.0,
    warm_up_s: Annotated[
        float, typer.Option("--warm-up", min=0, help="Seconds of load before the measurement.")
    ] = 1.0,
    min_bytes: Annotated[
        int, typer.Option(min=1, help="Length of the shortest text, in bytes.")
    ] = 8,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Length of the longest text, in bytes.")
    ] = 2048,
    skew: Annotated[
        float, typer.Option(min=0.01, help="A larger number makes long texts rarer.")
    ] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of the texts and of their arrival times.")] = 0,
    svg: Annotated[
        Path | None, typer.Option(help="Draw latency over throughput in this SVG file.")
    ] = None,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", min=0.001, help="Seconds after which a text counts as failed."),
    ] = 30.0,
    remote: Annotated[
        bool, typer.Option("--remote", help="Allow a load on another machine.")
    ] = False,
    model: Model = None,
    url: Url = URL,
    headers: Headers = None,
    as_json: AsJson = False,
) -> int:
    """Measure latency and throughput of the service under load, with generated texts.

    In the open loop, a latency starts when the text was due. Errors are counted by type and not
    retried. The column `batch` is the mean number of texts in a micro-batch.
    """
    if min_bytes > max_bytes:
        raise CommandFailed(
            f"--min-bytes ({min_bytes}) must not exceed --max-bytes ({max_bytes}).", USAGE
        )
    if clients is not None and rate is not None:
        raise CommandFailed(
            "Give either --clients or --rate, not both; run the command once for each.", USAGE
        )
    _check_host(url, remote)
    texts = make_texts(Recipe(seed, min_bytes, max_bytes, skew))
    shared = Load(duration_s=duration_s, warm_up_s=warm_up_s, timeout_s=timeout_s, seed=seed)
    if rate is None:
        counts = _numbers("16" if clients is None else clients, "--clients")
        loads = [replace(shared, clients=int(n)) for n in counts]
    else:
        loads = [replace(shared, rate_per_s=n) for n in _numbers(rate, "--rate")]
    found = asyncio.run(_measure(url, headers, loads, texts, model=model, is_quiet=as_json))
    if as_json:
        show_json({"texts": describe(texts), "loads": [asdict(one) for one in found]})
    if svg is not None:
        _draw(svg, found)
    return SOME_FAILED if any(one.errors for one in found) else 0


async def _measure(
    url: str,
    headers: list[str] | None,
    loads: Sequence[Load],
    texts: Sequence[str | bytes],
    *,
    model: str | None,
    is_quiet: bool,
) -> list[Measurement]:
    # No limit of connections: else the measurement would include the wait for one.
    limits = httpx.Limits(keepalive_expiry=4.0)
    named, found = named_headers(headers), []
    service = transport.base_url(url)
    network = transport.network_of(service, transport.client_headers(service, None, named))
    http = httpx.AsyncClient(limits=limits, **network.options())
    async with AsyncClient(url, model=model, headers=named, http=http) as client:
        await client.info(timeout_s=5)
        if not is_quiet:
            typer.echo(_row(_COLUMNS))
        for load in loads:
            found.append(await measure(client, load, texts))
            if not is_quiet:
                _show(found[-1])
    return found


def _show(one: Measurement) -> None:
    latencies = [f"{ms:,.1f}" if ms is not None else "-" for ms in _latencies(one)]
    batch = f"{one.mean_batch_texts:.1f}" if one.mean_batch_texts else "-"
    rates = (f"{one.texts_per_s:,.1f}", f"{one.bytes_per_s / 1000:,.1f}")
    num_errors = sum(one.errors.values())
    typer.echo(_row((one.load, f"{one.texts:,}", f"{num_errors:,}", *rates, *latencies, batch)))
    for kind, count in sorted(one.errors.items()):
        typer.echo(f"    {count:,} x {kind}")


def _row(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{14 if at == 0 else 10}}" for at, cell in enumerate(cells))


def _latencies(one: Measurement) -> tuple[float | None, ...]:
    return one.p50_ms, one.p95_ms, one.p99_ms


def _draw(path: Path, found: Sequence[Measurement]) -> None:
    points = [
        Point(one.load, one.texts_per_s, (one.p50_ms, one.p95_ms, one.p99_ms))
        for one in found
        if one.p50_ms is not None and one.p95_ms is not None and one.p99_ms is not None
    ]
    if not points:
        say(f"{path} was not written, because no text was scored.")
        return
    drawn = latency_plot(points, ("p50", "p95", "p99"), "evascore: latency over throughput")
    path.write_text(drawn, encoding="utf-8")


def _numbers(given: str, option: str) -> list[float]:
    try:
        numbers = [float(number) for number in given.split(",")]
    except ValueError:
        numbers = []
    is_count = option == "--clients"
    if not numbers or any(
        not 0 < number <= 10_000 or (is_count and number != int(number)) for number in numbers
    ):
        what = "whole numbers" if is_count else "numbers"
        raise CommandFailed(
            f"{option} is {given!r}; give {what} above 0 and up to 10,000, such as 1,4,16.", USAGE
        )
    return numbers


def _check_host(url: str, remote: bool) -> None:
    """Refuse to load another machine, unless --remote allows it."""
    host = transport.base_url(url).host
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if not (is_local or remote):
        raise CommandFailed(
            f"{host} is another machine; add --remote if you may put a load on it.", USAGE
        )
