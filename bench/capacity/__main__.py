"""Plans a fleet with a queueing model, or checks the model against workers on this machine.

    python -m bench.capacity plan --texts-per-s 20 --bytes-per-text 400 --p95-s 3 \
        --seconds-per-kb 0.074 --euros-per-gpu-hour 0.8
    python -m bench.capacity check

docs/capacity.md explains both.
"""

import argparse
import math
import sys
from pathlib import Path

from bench.capacity.checking import calibrate, compare_full, compare_load
from bench.capacity.planning import CannotPlan, Demand, Plan, plan
from bench.capacity.queueing import Workers
from bench.capacity.service_time import ServiceTime
from bench.fleet import fleet, num_cores
from bench.results import Results
from bench.texts import make_texts
from contract.settings import DEMO_CHECKPOINT, Settings

_BUDGET = {
    name: int(Settings.model_fields[name].default)
    for name in ("micro_batch_bytes", "micro_batch_texts")
}
# Besides the model: between two micro-batches of a worker without a GPU.
_FETCH_S = 0.003


def main() -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args()
    code: int = options.run(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.capacity",
        description="Plan a fleet, or check the queueing model. docs/capacity.md explains both.",
    )
    commands = parser.add_subparsers(required=True)
    planning = commands.add_parser("plan", help="print how many GPUs a demand needs")
    planning.set_defaults(run=_plan)
    for name, meaning in (
        ("texts-per-s", "texts per second that arrive, at random times"),
        ("bytes-per-text", "mean length of a text"),
        ("p95-s", "seconds within which 95 %% of the texts have their result"),
        ("seconds-per-kb", "seconds of one GPU for 1,000 bytes of text, in full micro-batches"),
        ("euros-per-gpu-hour", "price of one GPU"),
    ):
        planning.add_argument(f"--{name}", type=_positive, required=True, help=meaning)
    planning.add_argument(
        "--fixed-s",
        type=_positive,
        default=0.03,
        help="seconds of a micro-batch besides its bytes, such as reading the weights",
    )
    for name, default in _BUDGET.items():
        planning.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    checking = commands.add_parser("check", help="compare the model with workers on this machine")
    checking.set_defaults(run=_check)
    checking.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    checking.add_argument("--loads", nargs="+", type=_positive, default=[0.5, 0.7, 0.85])
    checking.add_argument("--seconds", type=_positive, default=60, help="of each load")
    checking.add_argument("--texts", type=int, default=600, help="texts at saturation, per worker")
    checking.add_argument("--rounds", type=int, default=4, help="rounds of the calibration")
    checking.add_argument("--micro-batch-bytes", type=int, default=4096)
    checking.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    checking.add_argument(
        "--is-sleeping",
        action="store_true",
        help="workers that sleep in place of computing: for a machine with other work",
    )
    checking.add_argument(
        "--limit-s", type=float, default=math.inf, help="stop after this many seconds"
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return value


def _plan(options: argparse.Namespace) -> int:
    demand = Demand(options.texts_per_s, options.bytes_per_text, options.p95_s)
    service = ServiceTime((_FETCH_S,), options.fixed_s, options.seconds_per_kb / 1000)
    one = Workers(1, service, options.micro_batch_bytes, options.micro_batch_texts)
    try:
        print(_described(plan(demand, one, options.euros_per_gpu_hour)))
    except CannotPlan as error:
        print(f"No plan: {error}.", file=sys.stderr)
        return 1
    return 0


def _described(found: Plan) -> str:
    return "\n".join(
        [
            f"GPUs                     {found.num_gpus:,}",
            f"p95 of the latency       {found.p95_s:.2f} s",
            f"mean micro-batch         {found.mean_batch_texts:.1f} texts",
            f"utilisation              {found.utilisation:.0%} of the time at work",
            f"most they can score      {found.full_texts_per_s:.1f} texts per second",
            f"price of a month         {found.euros_per_month:,.0f} euros",
            f"price of a million texts {found.euros_per_million_texts:,.2f} euros",
        ]
    )


def _check(options: argparse.Namespace) -> int:
    setup = {
        "model": options.model.name,
        "micro_batch_bytes": options.micro_batch_bytes,
        "seconds_of_each_load": options.seconds,
        "texts_at_saturation_per_worker": options.texts,
        "cores": num_cores(),
    }
    name, program = "capacity", "worker.main"
    if options.is_sleeping:
        name, program = "capacity_sleeping", "bench.capacity.sleeping_worker"
    with Results(name, setup, limit_s=options.limit_s) as results:
        for number in options.workers:
            results.step(f"start workers: {number}")
            budget = {"micro_batch_bytes": str(options.micro_batch_bytes)}
            with fleet(options.model, number, budget, program=program) as workers:
                texts = make_texts(options.texts * number)
                results.step("measure micro-batches of many sizes")
                service = calibrate(workers, texts, options.rounds)
                before = f"workers_{number}"
                results.put(
                    {
                        f"{before}_fetch_ms": round(service.fetch_s * 1000, 2),
                        f"{before}_fixed_ms": round(service.fixed_s * 1000, 2),
                        f"{before}_ms_per_kb": round(service.s_per_byte * 1e6, 1),
                    }
                )
                model = Workers(number, service, options.micro_batch_bytes)
                results.step("score a backlog")
                figures, full = compare_full(workers, texts, model)
                results.put({f"{before}_{name}": each for name, each in figures.items()})
                for load in options.loads:
                    results.step(f"load of {load:.0%}")
                    figures = compare_load(workers, texts, load * full, options.seconds, model)
                    results.put(
                        {f"{before}_load_{load:g}_{name}": each for name, each in figures.items()}
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
