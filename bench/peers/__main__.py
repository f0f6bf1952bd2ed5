"""Compares evascore with LitServe and FastAPI around the same model, on this machine.

The servers run alone and take turns. `make bench-peers` first makes the virtual environment of
LitServe and FastAPI. CPU time is that of all processes of a server, per scored text. On a busy
machine it moves less than latency and throughput do. In the mode `costless` the model costs
nothing, so that the servers' own cost is left. `flask` is Flask under Gunicorn, which answers
without scoring. The results are written after each measurement.
"""

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers.load import Load, send_for
from bench.peers.process_use import cpu_s, memory
from bench.peers.servers import PEERS_PACKAGES, PEERS_PYTHON, STARTERS, Server
from bench.results import Results
from bench.texts import MAX_TEXT_BYTES, MIN_TEXT_BYTES, make_texts
from contract.settings import DEMO_CHECKPOINT

NUM_TEXTS = 500
MODES = ("costless", "model")
PEERS = ("litserve", "fastapi", "uvicorn")
WARM_UP_S = 1.0
IDLE_S = 2.0
# The latency of an idle server: a pause before each text, as in bench.latency.
IDLE_TEXTS, PAUSE_S = 40, 0.05


@dataclass(frozen=True)
class Options:
    """What to measure."""

    modes: list[str]
    servers: list[str]
    clients: list[int]
    rounds: int
    seconds: float
    limit_s: float
    model: Path


def main() -> None:
    """Measure and write the results."""
    options = _options()
    found = defaultdict[str, list[float]](list)
    texts = make_texts(NUM_TEXTS)
    # The servers take turns, so that a change of the machine's speed affects all of them.
    runs = [
        (mode, name)
        for _ in range(options.rounds)
        for mode in options.modes
        for name in options.servers
        # Flask has no model here.
        if (mode, name) != ("model", "flask")
    ]
    with Results("peers", _setup(options, 0, len(runs)), limit_s=options.limit_s) as results:
        for number, (mode, name) in enumerate(runs):
            results.step(f"{number + 1} of {len(runs)}: {name}, {mode}")
            with (
                tempfile.TemporaryDirectory() as folder,
                STARTERS[name](Path(folder), options.model, mode == "costless") as server,
            ):
                for measured in _measure(server, texts, options):
                    print(f"  {measured}", flush=True)
                    for what, value in measured.items():
                        found[f"{mode}_{name}_{what}"].append(value)
                    results.put(medians(found), is_printed=False)
            results.setup |= _setup(options, number + 1, len(runs))


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {what: round(median(values), 2) for what, values in found.items()}


def _measure(server: Server, texts: Sequence[str], options: Options) -> Iterator[dict[str, float]]:
    """The figures of one server, by steps of some seconds."""
    asyncio.run(send_for(server.port, texts, num_clients=4, seconds=WARM_UP_S))
    before = cpu_s(server.root)
    time.sleep(IDLE_S)
    yield {"idle_cpu_ms_per_s": round((cpu_s(server.root) - before) / IDLE_S * 1000, 1)}
    idle = asyncio.run(
        send_for(server.port, texts, num_clients=1, num_texts=IDLE_TEXTS, pause_s=PAUSE_S)
    )
    yield {"idle_p50_ms": round(idle.percentile_ms(0.5), 2)}
    for num_clients in options.clients:
        measured = _under_load(server, texts, num_clients, options.seconds)
        yield {f"clients_{num_clients}_{what}": value for what, value in measured.items()}
    used = memory(server.root)
    yield {what: round(value, 1) for what, value in used._asdict().items()}


def _under_load(
    server: Server, texts: Sequence[str], num_clients: int, seconds: float
) -> dict[str, float]:
    roots = {"": server.root, **{f"{name}_": root for name, root in server.parts.items()}}
    before = {name: cpu_s(root) for name, root in roots.items()}
    load = asyncio.run(send_for(server.port, texts, num_clients=num_clients, seconds=seconds))
    used_s = {name: cpu_s(root) - before[name] for name, root in roots.items()}
    return load_figures(load, used_s)


def load_figures(load: Load, used_s: dict[str, float]) -> dict[str, float]:
    """The figures of one load.

    Args:
        used_s: CPU seconds that the server used; the key goes before `cpu_ms_per_text`.
    """
    return {
        **{
            f"{name}cpu_ms_per_text": round(each_s / load.num_texts * 1000, 2)
            for name, each_s in used_s.items()
        },
        "texts_per_s": round(load.num_texts / load.elapsed_s, 1),
        "p50_ms": round(load.percentile_ms(0.5), 2),
        "p95_ms": round(load.percentile_ms(0.95), 2),
        "unfinished_answers": load.num_unfinished_answers,
    }


def _setup(options: Options, num_done: int, num_runs: int) -> dict[str, Any]:
    versions = {each.name: each.version for each in distributions(path=[str(PEERS_PACKAGES)])}
    return {
        "text_bytes_min_max": [MIN_TEXT_BYTES, MAX_TEXT_BYTES],
        "seconds_of_each_load": options.seconds,
        "model": options.model.name,
        "rounds": options.rounds,
        "measured_servers_of_all_rounds": f"{num_done} of {num_runs}",
        "peers": " ".join(f"{name} {versions.get(name)}" for name in PEERS),
    }


def _options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--servers", nargs="+", choices=list(STARTERS), default=list(STARTERS))
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3, help="the figures are their medians")
    parser.add_argument("--seconds", type=float, default=2, help="time of each load")
    parser.add_argument("--limit-s", type=float, default=900, help="no server starts after it")
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    options = Options(**vars(parser.parse_args()))
    if {"litserve", "fastapi"} & set(options.servers) and not PEERS_PYTHON.exists():
        parser.error("LitServe and FastAPI are not installed; run make bench-peers")
    return options


if __name__ == "__main__":
    main()
