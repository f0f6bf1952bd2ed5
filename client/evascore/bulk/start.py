"""Checks the files of a bulk run, and decides whether it starts or resumes."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evascore.bulk.files import BulkRefused, State, Target, Upload, planned
from evascore.errors import EvascoreError
from evascore.operations.api import Operations
from evascore.operations.retrying import Call
from evascore.readers.inputs import STDIN, Input
from evascore.readers.same_file import holds_input
from evascore.sync import Client

# Time limit of the request that erases a batch of a run that is given up.
ERASE_S = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The files and options of a run."""

    source: Path
    target: Path
    options: dict[str, str]
    """Query parameters of `POST /batches`."""
    resume: bool = False
    overwrite: bool = False
    keep: bool = False
    """Whether batches stay at the service after they are done."""
    is_resumable: bool = True
    """Whether the files stay when the run ends early."""

    @property
    def state_path(self) -> Path:
        """The file that keeps the progress of the run."""
        return self.target.with_name(self.target.name + ".state")


def erase_soon(client: Client, uploads: list[Upload]) -> None:
    """Erase the batches of a run that is given up; what the service does not erase expires there.

    Each is asked for once, as somebody waits for the end of the run.
    """
    operations = Operations()
    for upload in uploads:
        if upload.batch_id is not None and not upload.is_finished:
            call = Call.begin(ERASE_S, patience_s=0)
            with suppress(EvascoreError):
                client.run(operations.erase_batch(upload.batch_id, call))


def check_paths(plan: Plan) -> None:
    """Check that the input is there, and that the output may be written.

    Raises:
        BulkRefused, OSError: it is not, or must not be.
    """
    if plan.source != STDIN:
        plan.source.stat()
    if plan.target.exists() and not plan.target.is_file():
        raise BulkRefused(
            f"{plan.target} is not a regular file; evascore bulk reads OUT again to resume. Give a"
            " file, or - for stdout."
        )
    check_not_input(plan.target, plan.source)
    check_not_input(plan.state_path, plan.source)
    has_content = plan.target.exists() and plan.target.stat().st_size > 0
    if has_content and not (plan.overwrite or plan.state_path.exists()):
        raise BulkRefused(
            f"{plan.target} is not empty, and its state file {plan.state_path} is missing, so the"
            " run cannot be resumed. Start again with --overwrite."
        )


def check_not_input(target: Path, source: Path) -> None:
    """Check that writing `target` would not replace the input.

    Raises:
        BulkRefused: it would.
        OSError: the input cannot be found.
    """
    if holds_input(target, source):
        raise BulkRefused(f"{target} is also the input; give another file for the output.")


def check_outside(target: Path, source: Path) -> None:
    """Check that the output is not in a folder that is the input: a resumed run would read it.

    Raises:
        BulkRefused: it is.
    """
    if source != STDIN and source.is_dir() and source.resolve() in target.resolve().parents:
        raise BulkRefused(
            f"{target} is in the folder {source}, so a resumed run would read it as input. Give a"
            " file in another folder; to resume a run, move OUT and OUT.* there."
        )


def starting_state(client: Client, plan: Plan, lines: Input, target: Target) -> State:
    """Return the state to start or to resume with; erase what a discarded run left at the service.

    Raises:
        BulkRefused: the files do not belong together.
        OSError: a file cannot be read.
    """
    fresh = planned(lines, {**plan.options, **lines.params})
    if not plan.state_path.exists():
        target.clear()
        return fresh
    if plan.overwrite:
        _discard(client, plan)
        target.clear()
        return fresh
    if not plan.resume:
        raise BulkRefused(
            f"{plan.target} exists from an earlier run. Continue it with --resume, or start again"
            " with --overwrite."
        )
    state = State.load(plan.state_path)
    if state.input_sha256 != fresh.input_sha256:
        raise BulkRefused(
            f"{plan.source} has changed since the run that wrote {plan.target}, so the run cannot"
            " be resumed. Start again with --overwrite."
        )
    if (state.format, state.options) != (fresh.format, fresh.options):
        raise BulkRefused(
            f"{plan.target} was started with other options"
            f" ({_query(state.options)}). Give the same options, or start"
            " again with --overwrite."
        )
    state.num_bytes = fresh.num_bytes
    return state


def _discard(client: Client, plan: Plan) -> None:
    """Erase the batches of an earlier run, which would be scored before those of the new one."""
    if plan.keep:
        return
    # Another version may have written the state.
    with suppress(BulkRefused):
        erase_soon(client, State.load(plan.state_path).uploads)


def _query(options: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
