"""`deploy/gcp/keep-alive`: restarts a preempted VM, within limits of starts and cost.

It restarts only a VM that Google preempted. A VM that a person, `down` or its own time limit
stopped stays stopped. It needs only gcloud and Python's standard library.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

EPILOG = """
It ends with exit code 0 when somebody stops or deletes the VM. When the cost is reached it stops
the VM and ends with exit code 1. Run it on a machine that stays on, not on the VM.
"""
# Last operations of a stopped VM after which it is restarted. `start`: a start that found no free
# machine.
WANTED_AFTER = {"compute.instances.preempted", "start", "compute.instances.hostError"}
HOUR_S = 3600.0
ANSWER_S = 180
STOP_TRIES = 10


class KeepAliveFailed(Exception):
    """keep-alive cannot go on; the message is one line that says what to do."""


@dataclass(slots=True)
class Budget:
    """What the VM may still cost, and how often it may still be started this hour."""

    max_starts_per_hour: int
    max_cost: float
    """US dollars of running time, from the start of this command on."""
    price_per_hour: float
    running_s: float = 0.0
    starts: deque[float] = field(default_factory=deque)
    """Times of the starts within the last hour, the oldest first."""

    @property
    def cost(self) -> float:
        """US dollars so far."""
        return self.running_s / HOUR_S * self.price_per_hour

    @property
    def is_spent(self) -> bool:
        """Whether the VM must not run any longer."""
        return self.cost >= self.max_cost

    def may_start(self, now: float) -> bool:
        """Whether one more start at `now` keeps within the limit of an hour."""
        while self.starts and now - self.starts[0] >= HOUR_S:
            self.starts.popleft()
        return len(self.starts) < self.max_starts_per_hour

    def count_start(self, now: float) -> None:
        """Count a start that was requested."""
        self.starts.append(now)


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM, controlled by gcloud."""

    name: str
    place: tuple[str, ...]
    """`--zone=...` and, if it is named, `--project=...`."""

    def state(self) -> str:
        """RUNNING, STOPPING, TERMINATED, ..."""
        return self._gcloud("instances", "describe", self.name, "--format=value(status)")

    def last_operation(self) -> str:
        """What last happened to it: `stop`, `start`, `compute.instances.preempted`, ..."""
        zone, *project = self.place
        return self._gcloud(
            *("operations", "list", f"--zones={zone.partition('=')[2]}", *project),
            *(f"--filter=targetLink~/instances/{self.name}$", "--sort-by=~insertTime"),
            *("--limit=1", "--format=value(operationType)"),
            is_placed=False,
        )

    def start(self) -> None:
        """Start it. Raises: KeepAliveFailed."""
        self._gcloud("instances", "start", self.name)

    def stop(self) -> None:
        """Stop it. Raises: KeepAliveFailed."""
        self._gcloud("instances", "stop", self.name)

    def _gcloud(self, *words: str, is_placed: bool = True) -> str:
        command = ["gcloud", "compute", *words, *(self.place if is_placed else ()), "--quiet"]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=ANSWER_S
            )
        except subprocess.TimeoutExpired:
            raise KeepAliveFailed(
                f"gcloud did not answer within {ANSWER_S} s; check the network"
            ) from None
        if ended.returncode:
            said = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise KeepAliveFailed(said)
        return ended.stdout.strip()


def keep_alive(vm: Vm, budget: Budget, *, every_s: float, is_dry_run: bool) -> str:
    """Watch `vm` and restart it until there is no more to do; returns why.

    Raises:
        KeepAliveFailed: a limit is reached, and the VM is stopped; or there never was such a VM.
    """
    looked_at = time.time()
    was_seen = False
    while True:
        state = "unknown"
        try:
            state = vm.state()
            was_seen = True
            if state == "TERMINATED":
                reason = _restart(vm, budget, is_dry_run)
                if reason:
                    return reason
        except KeepAliveFailed as error:
            if "was not found" in str(error):
                if was_seen:
                    return f"{vm.name} is deleted"
                raise KeepAliveFailed(
                    f"there is no VM '{vm.name}' at {' '.join(vm.place)}; "
                    "run deploy/gcp/up, or name another VM with --name and --zone"
                ) from None
            # No free GPU in the zone, or a broken connection: the next check may succeed.
            _say(f"{error}; checking again in {every_s:g} s")
        now = time.time()
        if state != "TERMINATED":
            # An unknown state counts as running.
            budget.running_s += now - looked_at
        looked_at = now
        if is_dry_run:
            return f"{vm.name} is {state}"
        if budget.is_spent:
            _stop(vm, every_s)
            raise KeepAliveFailed(
                f"the VM has cost about {budget.cost:.2f} dollars; the limit is "
                f"{budget.max_cost:.2f}, so it was stopped; raise --max-cost to go on"
            )
        time.sleep(every_s)


def _restart(vm: Vm, budget: Budget, is_dry_run: bool) -> str:
    """Start a stopped VM; returns why it stays stopped, or nothing."""
    operation = vm.last_operation()
    if operation not in WANTED_AFTER:
        return f"{vm.name} was stopped on purpose ({operation or 'no operation known'})"
    now = time.time()
    if not budget.may_start(now):
        if is_dry_run:
            return "the limit of starts per hour is reached"
        _say(f"started {len(budget.starts)} times within the hour, the limit: waiting")
        return ""
    if is_dry_run:
        return f"would start {vm.name}"
    _say(f"{vm.name} was preempted: starting it again")
    vm.start()
    # One that found no free machine cost nothing and does not count.
    budget.count_start(now)
    return ""


def _stop(vm: Vm, every_s: float) -> None:
    """Stop the VM, with retries: a running VM costs money."""
    for _ in range(STOP_TRIES):
        try:
            vm.stop()
        except KeepAliveFailed as error:
            _say(f"{error}; trying again to stop it in {every_s:g} s")
            time.sleep(every_s)
        else:
            return
    raise KeepAliveFailed(f"{vm.name} could not be stopped and costs money: run deploy/gcp/down")


def main() -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args()
    if shutil.which("gcloud") is None:
        print("keep-alive: gcloud is not installed; see cloud.google.com/sdk", file=sys.stderr)
        return 1
    project = (f"--project={arguments.project}",) if arguments.project else ()
    vm = Vm(arguments.name, (f"--zone={arguments.zone}", *project))
    budget = Budget(arguments.max_starts_per_hour, arguments.max_cost, arguments.price_per_hour)
    try:
        reason = keep_alive(vm, budget, every_s=arguments.every_s, is_dry_run=arguments.dry_run)
    except KeepAliveFailed as error:
        print(f"keep-alive: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        reason = "interrupted; the VM keeps running and stops at its own --max-hours"
    _say(reason)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy/gcp/keep-alive",
        description="Restart a preempted VM, within limits of starts and cost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="evascore", help="name of the VM (default evascore)")
    parser.add_argument(
        "--zone", default="us-central1-a", help="zone of the VM (default us-central1-a)"
    )
    parser.add_argument("--project", help="project (default: that of gcloud's configuration)")
    parser.add_argument("--max-starts-per-hour", type=_positive(int), default=4, help="default 4")
    parser.add_argument(
        "--max-cost",
        type=_positive(float),
        default=5.0,
        help="limit of the total cost in dollars (default 5)",
    )
    parser.add_argument(
        "--price-per-hour",
        type=_positive(float),
        default=0.35,
        help="of the running VM in dollars (default 0.35: a spot g2-standard-4, rounded up)",
    )
    parser.add_argument("--every-s", type=_positive(float), default=60.0, help="default 60")
    parser.add_argument("--dry-run", action="store_true", help="check once, start and stop nothing")
    return parser


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e6:
            wanted = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"{text!r} must be {wanted} above 0 and below 1,000,000"
            )
        return number

    return parse


def _say(line: str) -> None:
    print(f"keep-alive: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
