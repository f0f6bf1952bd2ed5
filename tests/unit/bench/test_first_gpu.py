"""A run on a GPU keeps every figure, whatever fails, hangs or runs out of time."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from bench.first_gpu import __main__ as first_gpu
from bench.first_gpu import processes, project, wheels
from bench.first_gpu.figures import Figures
from bench.first_gpu.modes import MODES, PLAIN, Modes
from bench.first_gpu.passes import Pass
from bench.first_gpu.plan import DEFAULT_STEPS, GRACE_S, STEPS, Group, Part, granted_s
from bench.first_gpu.processes import Starter
from bench.first_gpu.run import OutOfTime, Run
from bench.first_gpu.sizes import REAL, TINY, data_sheet
from bench.first_gpu.steps import gpu_tests, graphs, oracle, service, targets, tiles
from bench.first_gpu.steps.graphs import CapturedPass
from bench.first_gpu.steps.kernels import union
from bench.first_gpu.table import has_failed, table
from bench.first_gpu.texts import mixed_lengths, random_text, texts_of
from bench.roofline import LINEAR_WEIGHTS
from contract.settings import REPOSITORY
from model.ops.tiled_product import launch
from tests.conftest import HANG_S, has_ended, wait_until


@pytest.fixture
def run(tmp_path) -> Run:
    """A rehearsal with minutes left."""
    began_s = time.time()
    return Run(tmp_path, TINY, "cpu", "torch", began_s=began_s, deadline_s=began_s + 600)


def whats(run) -> list[str]:
    """What the figures so far are about."""
    return [line["what"] for line in run.figures.lines()]


def test_figure_is_on_disk_before_the_next_is_measured(run):
    run.put("copy", gb_per_s=1.5)
    text = (run.folder / "first_gpu.jsonl").read_text()
    on_disk = [json.loads(line) for line in text.splitlines()]
    run.put("copy", gb_per_s=2.5)

    assert [(line["step"], line["what"], line["gb_per_s"]) for line in on_disk] == [
        ("start", "copy", 1.5)
    ]
    assert run.figures.latest("copy", "gb_per_s") == 2.5
    assert run.figures.latest("copy", "no such figure") is None


def test_figures_of_no_run_are_none(tmp_path):
    assert Figures(tmp_path / "none.jsonl", 0).lines() == []


def test_line_that_was_cut_off_costs_no_other_figure(run):
    run.put("copy", gb_per_s=1.5)
    with run.figures.path.open("a") as file:
        file.write('{"step": "facts", "what": "mach\n')
    run.put("copy", gb_per_s=2.5)

    assert whats(run) == ["copy", "copy"]
    assert run.figures.latest("copy", "gb_per_s") == 2.5


def test_failure_of_a_part_is_a_figure_and_the_next_part_runs(run):
    with run.part("first"):
        raise ValueError("it broke")
    with run.part("second"):
        run.put("second")

    [failed, second] = run.figures.lines()
    assert failed["what"] == "first: FAILED"
    assert failed["error"] == "ValueError: it broke"
    assert "test_first_gpu.py" in failed["at"]
    assert second["what"] == "second"


def test_broken_cuda_ends_the_step(run, monkeypatch):
    broken = RuntimeError("CUDA error: an illegal memory access was encountered")

    def fail() -> None:
        raise broken

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    with pytest.raises(RuntimeError), replace(run, device="cuda").part("first"):
        fail()

    assert whats(run) == ["first: FAILED"]


def test_operation_that_a_library_of_cuda_refuses_does_not_end_the_step(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with replace(run, device="cuda").part("products in int8"):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmul")

    assert whats(run) == ["products in int8: FAILED"]


def test_part_without_time_is_left_out_and_ends_the_step(run):
    run.deadline_s = time.time() + 5
    with pytest.raises(OutOfTime), run.part("outer"), run.part("inner", needs_s=10):
        run.put("never")

    assert whats(run) == ["inner: left out"]


def is_gone(pid: int) -> bool:
    """Whether the process `pid` has ended."""
    try:
        return has_ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def sleep_beyond_the_limit(run, folder):
    """A part that hangs, with a child that hangs too."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    run.put("child", pid=child.pid)
    time.sleep(600)


def stop_what_it_started(run):
    """A part that cleans up when it is asked to stop."""
    try:
        run.put("began")
        time.sleep(600)
    finally:
        run.put("cleaned up")


def end_like_a_crash(run):
    """A part that a signal ends."""
    run.put("before the crash")
    os.kill(os.getpid(), signal.SIGKILL)


def raise_an_error(run):
    """A part with an error outside of any `Run.part`."""
    raise ValueError("no part around it")


def put_a_figure(run, name):
    """A part that works."""
    run.put(name)


@pytest.fixture
def steps(monkeypatch):
    """The parts of this file in place of a module of steps."""
    monkeypatch.setitem(sys.modules, "bench.first_gpu.steps.fake", sys.modules[__name__])


def test_parts_that_crash_or_fail_cost_the_others_nothing(run, steps):
    parts = (
        Part("crashing", "fake:end_like_a_crash"),
        Part("failing", "fake:raise_an_error"),
        Part("working", "fake:put_a_figure", ("it works",)),
    )
    Starter().run_group(run, Group(60, parts))

    lines = {line["what"]: line for line in run.figures.lines()}
    assert lines["part crashing ended"]["status"] == -9
    assert lines["part failing ended"]["status"] == 1
    assert lines["part working ended"]["status"] == 0
    assert {"before the crash", "it works"} <= lines.keys()
    assert "no part around it" in lines["part FAILED"]["error"]
    assert [has_failed(lines[f"part {name} ended"]) for name in ("crashing", "working")] == [
        True,
        False,
    ]


def put_settings(run):
    """A part that puts what its process is set up for."""
    bf16 = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    run.put("settings", bf16_sums=bf16)


def test_part_on_a_gpu_is_set_up_as_a_worker(run, steps, monkeypatch):
    monkeypatch.setattr(processes, "_can_start_cuda", lambda run: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: run.put("current", gpu=device))
    monkeypatch.setattr(project, "keep_freed_memory", lambda: run.put("keeps freed memory"))
    Starter().run_group(replace(run, device="cuda"), Group(60, (Part("p", "fake:put_settings"),)))

    assert run.figures.latest("current", "gpu") == "cuda:0"
    assert run.figures.latest("settings", "bf16_sums") is False
    assert whats(run) == ["current", "keeps freed memory", "settings", "part p ended"]


def put_whether_descriptors_are_used(run):
    """A part that puts whether a matrix may be read by descriptor."""
    run.put("descriptors", used=launch.may_be_described(torch.zeros(1, 16)))


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_part_reads_by_descriptor_unless_the_run_does_not(run, steps, by_descriptor):
    part = Part("p", "fake:put_whether_descriptors_are_used")
    Starter().run_group(replace(run, by_descriptor=by_descriptor), Group(60, (part,)))

    assert run.figures.latest("descriptors", "used") is by_descriptor


class HangingDescriptors(Starter):
    """Runs the targets of a GPU, whose figures come in the plain form alone if they `hang`."""

    def __init__(self, *, hang: bool) -> None:
        self.hang, self.forms = hang, []

    def run_group(self, run, group, later=()):
        [part] = group.parts
        self.forms.append((part.name, run.by_descriptor))
        if part.name == "target_bf16" or not (self.hang and run.by_descriptor):
            run.put(part.name.replace("_", " "))


def test_product_by_descriptor_that_gives_no_figure_is_replaced_by_the_plain_one(run):
    starter = HangingDescriptors(hang=True)
    first_gpu._run_steps(run, ["targets", "graphs"], starter)

    assert starter.forms == [
        ("target_bf16", True),
        ("target_int8", True),
        ("target_int8", False),
        ("target_fp8", False),
        ("graphs", False),
    ]
    assert [line["what"] for line in run.figures.lines() if has_failed(line)] == [
        "target int8 by descriptor: FAILED; from now on all products are plain"
    ]


def test_product_by_descriptor_stays_where_its_figure_came(run):
    run.put("target int8")  # of an earlier run
    starter = HangingDescriptors(hang=False)
    first_gpu._run_steps(run, ["targets", "graphs"], starter)

    assert [form for form in starter.forms if not form[1]] == []
    assert len(starter.forms) == 4


def test_memory_of_the_gpu_is_managed_as_in_the_image(monkeypatch):
    environment = {"HF_HUB_OFFLINE": "0"}
    monkeypatch.setattr(os, "environ", environment)
    first_gpu._prepare_environment()
    assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert environment["HF_HUB_OFFLINE"] == "0"


def end_time_after(run, what, monkeypatch):
    """Have the limits of all parts be over as soon as there is a figure about `what`."""

    def now() -> float:
        # As text: the last line may be half written.
        text = run.figures.path.read_text() if run.figures.path.exists() else ""
        return time.time() + (10 * HANG_S if f'"{what}"' in text else 0)

    monkeypatch.setattr(processes, "time", SimpleNamespace(time=now, sleep=time.sleep))


def test_hanging_part_is_ended_at_its_limit_with_all_that_it_started(run, steps, monkeypatch):
    end_time_after(run, "child", monkeypatch)
    Starter().run_group(run, Group(600, (Part("hanging", "fake:sleep_beyond_the_limit", ("",)),)))

    pid = run.figures.latest("child", "pid")
    assert "part hanging was ended at its time limit" in whats(run)
    wait_until(lambda: is_gone(pid))


def test_part_at_its_limit_stops_what_it_started(run, steps, monkeypatch):
    end_time_after(run, "began", monkeypatch)
    Starter().run_group(run, Group(600, (Part("slow", "fake:stop_what_it_started"),)))

    assert "cleaned up" in whats(run)
    assert "part slow was ended at its time limit" in whats(run)


def hang_at_sigterm(run):
    """A part that hangs and ignores the request to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run.put("hangs", pid=os.getpid())
    time.sleep(HANG_S)


def run_a_part_that_no_signal_ends(folder):
    """Run a part for ever, and another; signals end no process, as if the driver held it."""
    run = Run(Path(folder), TINY, "cpu", "torch", began_s=0, deadline_s=time.time() + 99 * HANG_S)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "bench.first_gpu.steps.fake", sys.modules[__name__])
        end_time_after(run, "hangs", patch)
        patch.setattr(os, "killpg", lambda *arguments: None)
        patch.setattr(processes.BaseProcess, "kill", lambda process: None)
        patch.setattr(processes, "STOP_S", 0)
        patch.setattr(processes, "KILL_S", 0.01)
        Starter().run_group(run, Group(600, (Part("stuck", "fake:hang_at_sigterm"),)))
    run.put("next")


def test_part_that_no_signal_ends_holds_up_neither_the_next_nor_the_end(run):
    program = (
        "from tests.unit.bench.test_first_gpu import run_a_part_that_no_signal_ends as run\n"
        f"run({str(run.folder)!r})"
    )
    command = [sys.executable, "-c", program]
    try:
        ended = subprocess.run(
            command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, timeout=HANG_S / 2, check=False
        )
    finally:
        os.kill(run.figures.latest("hangs", "pid"), signal.SIGKILL)

    assert ended.returncode == 1
    [stuck] = [line for line in run.figures.lines() if "FAILED" in line["what"]]
    assert stuck["what"] == "part stuck FAILED to end when it was killed"
    assert whats(run)[-1] == "next"


FAKE_PYTHON = """#!/bin/sh
[ "$2" = pip ] && exit 0
echo printed
sleep 600 &
echo $! > "{pid_file}"
exit 3
"""


def test_script_ends_though_a_process_holds_its_output(tmp_path):
    python, pid_file = tmp_path / "python", tmp_path / "pid"
    python.write_text(FAKE_PYTHON.format(pid_file=pid_file))
    python.chmod(0o755)
    command = [
        *("env", f"PYTHON={python}", f"OUT={tmp_path / 'out'}"),
        *("sh", "bench/first_gpu/run.sh", str(tmp_path)),
    ]
    try:
        ended = subprocess.run(
            command,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=HANG_S / 2,
            check=False,
        )
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)

    assert ended.returncode == 3
    assert ended.stdout == (tmp_path / "out" / "first_gpu.log").read_text() == "printed\n"


# The mark comes later: a file that has it is taken for one whose own tests need a GPU.
KERNEL_TESTS = """
import os
import time
import pytest

pytestmark = pytest.mark.{mark}


def test_kernel_is_wrong():
    assert 1 == 2, "other bits"


def test_kernel_is_right():
    pass


@pytest.mark.skip
def test_kernel_of_another_gpu():
    pass


@pytest.mark.parametrize("number", range(2))
def test_kernel_without_end(number):
    {end}
"""
NUM_ENDING = 3


class CutOff(subprocess.Popen):
    """pytest, whose time is over as soon as the tests that end have ended."""

    is_cut_off = False

    def wait(self, timeout: float | None = None) -> int:
        if self.is_cut_off:
            return super().wait(HANG_S)
        self.is_cut_off = True
        assert timeout is not None
        assert timeout > 0
        file = Path(self.args[self.args.index("--outcomes") + 1])
        wait_until(lambda: file.exists() and file.read_text().count("\n") == NUM_ENDING, HANG_S)
        return super().wait(0)


@pytest.mark.parametrize(
    ("end", "num_processes", "status", "popen"),
    [("os._exit(3)", 1, 3, subprocess.Popen), ("time.sleep(600)", 2, "time limit", CutOff)],
    ids=["crash", "time limit"],
)
def test_tests_that_come_to_no_end_name_those_that_failed_before(
    run, end, num_processes, status, popen, monkeypatch
):
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(os, "cpu_count", lambda: gpu_tests.MANY_CORES + num_processes - 1)
    monkeypatch.setattr(gpu_tests, "TEST_PROCESSES", num_processes)
    (run.folder / "test_kernels.py").write_text(KERNEL_TESTS.format(mark="gpu", end=end))
    gpu_tests.run_tests(run, "kernels", [str(run.folder)], is_parallel=True)

    [counts, failure] = run.figures.lines()
    assert counts["status"] == status
    assert (counts["failed"], counts["passed"], counts["skipped"]) == (1, 1, 1)
    assert has_failed(counts)
    assert failure["what"] == "tests: kernels: FAILED"
    assert failure["test"].endswith("test_kernels.py::test_kernel_is_wrong")
    assert "other bits" in failure["message"]
    own = psutil.Process().children(recursive=True)
    assert not [each for each in own if str(run.folder) in each.cmdline()]


def test_processes_that_test_side_by_side_share_the_cores(run, monkeypatch):
    (run.folder / "test_threads.py").write_text(
        "import pytest, torch\n"
        "@pytest.mark.{}\n"
        "def test_threads():\n"
        "    assert torch.get_num_threads() == 2".format("gpu")
    )
    monkeypatch.setattr(os, "cpu_count", lambda: gpu_tests.MANY_CORES + 1)
    monkeypatch.setattr(gpu_tests, "TEST_PROCESSES", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    gpu_tests.run_tests(run, "kernels", [str(run.folder)], is_parallel=True)

    [counts] = run.figures.lines()
    assert counts["passed"] == 1


def test_kernel_tests_that_say_most_come_first_and_all_come_once():
    files = [Path(file) for file in gpu_tests.kernel_test_files()]
    assert files[0].name == "test_whole_model.py"
    assert sorted(files) == sorted(project.KERNEL_TESTS.glob("test_*.py"))


def test_post_without_an_answer_does_not_cost_the_bulk_run(run, monkeypatch):
    def fail(*arguments):
        raise TimeoutError("timed out")

    monkeypatch.setattr(service, "_started", lambda *arguments: contextlib.nullcontext())
    monkeypatch.setattr(service, "_wait_until_ready", lambda *arguments: None)
    monkeypatch.setattr(service, "_measure_posts", fail)
    monkeypatch.setattr(service, "_measure_bulk", lambda run, *arguments: run.put("bulk"))

    service.measure_demo(run)

    assert whats(run)[1:] == ["posts demo: FAILED", "bulk"]


def test_bulk_run_that_is_cut_off_has_the_speed_of_what_it_did(run, tmp_path, monkeypatch):
    def cut_off(command, *, timeout, **options):
        """Write three results and a part of the fourth, as far as the client came."""
        Path(command[5]).write_text("{}\n" * 3 + '{"num')
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(service.subprocess, "run", cut_off)
    service._measure_bulk(run, "demo", "http://127.0.0.1:1", tmp_path, 50)

    [line] = run.figures.lines()
    assert (line["what"], line["texts"], line["lines"]) == ("service demo: bulk", 50, 3)
    assert line["texts_per_s"] > 0
    assert has_failed(line)


def test_machine_without_a_gpu_is_refused():
    command = [sys.executable, "-m", "bench.first_gpu"]
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert ended.stderr.startswith("bench.first_gpu: no CUDA device found")


def test_machine_is_measured_where_the_model_cannot_be_imported(tmp_path):
    program = (
        "import runpy, sys\n"
        "sys.modules['model'] = None\n"
        f"sys.argv[1:] = ['--cpu-rehearsal', '--steps', 'facts', '--out', {str(tmp_path)!r}]\n"
        "runpy.run_module('bench.first_gpu', run_name='__main__')"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    found = Figures(tmp_path / "first_gpu.jsonl", 0)

    assert ended.returncode == 1
    assert found.latest("import of the project: FAILED", "error")
    assert found.latest("products in bf16", "ceiling_tera_per_s") is not None


@pytest.mark.parametrize("step", STEPS)
def test_parts_of_the_plan_exist(step):
    for group in STEPS[step]:
        for part in group.parts:
            module, _, function = part.function.partition(":")
            program = f"from bench.first_gpu.steps.{module} import {function}"
            assert compile(program, part.name, "exec")
            assert (REPOSITORY / f"bench/first_gpu/steps/{module}.py").exists()
            assert (
                f"\ndef {function}("
                in (REPOSITORY / f"bench/first_gpu/steps/{module}.py").read_text()
            )


def test_short_table_ends_with_what_decides():
    whats = ["target bf16", "offline bf16: no outputs", "oracle: FAILED", "copy", "graph bf16"]
    lines = [{"step": "any", "what": what, "at_s": 1, "error": "why"} for what in whats]
    rows = table(lines, is_short=True).splitlines()
    assert [row.partition("  ")[0] for row in rows] == [*whats[3:], *whats[:3]]


def test_group_leaves_later_groups_what_they_need_at_least():
    group, *later = (Group(100, (), least_s=20) for _ in range(3))
    assert granted_s(group, later, 500) == 100
    assert granted_s(group, later, 120) == 80 - 2 * GRACE_S
    assert granted_s(group, later, 50) == 20  # of too little, the first comes first
    assert granted_s(group, later, 15) == 15
    assert granted_s(group, later, 500, patience=5) == 460 - 2 * GRACE_S


class Clock:
    """A clock that advances only when a test says by how many seconds."""

    now_s = 1000.0

    def time(self) -> float:
        return self.now_s


class SlowParts(Starter):
    """Takes all the time that each group gets, and some to end it."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.got_s = clock, {}

    def run_group(self, run, group, later=()):
        took_s = granted_s(group, later, run.left_s())
        self.got_s[group.parts[0].name] = took_s
        if group.figure:
            run.put(group.figure)
        self.clock.now_s += took_s + GRACE_S


# As one lent machine gives them; importing everything on a cold disk takes some.
BUDGET_S, IMPORTS_S = 440, 30


def test_every_step_gets_its_least_time_though_all_before_use_theirs(run, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("bench.first_gpu.run.time", clock)
    run.deadline_s = clock.now_s + BUDGET_S - IMPORTS_S
    starter = SlowParts(clock)
    first_gpu._run_steps(run, DEFAULT_STEPS, starter)

    groups = [group for step in DEFAULT_STEPS for group in STEPS[step]]
    assert list(starter.got_s) == [group.parts[0].name for group in groups]
    for group in groups:
        assert starter.got_s[group.parts[0].name] >= group.least_s
    # What decides has all its time.
    for group in STEPS["targets"]:
        assert starter.got_s[group.parts[0].name] == group.limit_s
    assert not [line for line in run.figures.lines() if has_failed(line)]


def test_step_without_time_is_left_out(run, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("bench.first_gpu.run.time", clock)
    run.deadline_s = clock.now_s + 45
    first_gpu._run_steps(run, ["facts", "latency", "graphs"], SlowParts(clock))

    [left_out] = run.figures.lines()
    assert left_out["what"] == "step graphs: left out"
    assert has_failed(left_out)


def test_step_that_cannot_be_started_costs_the_next_nothing(run):
    started = []

    class WithoutMemory(Starter):
        def run_group(self, run, group, later=()):
            started.append(run.step)
            if run.step == "facts":
                raise OSError(errno.ENOMEM, "Cannot allocate memory")

    first_gpu._run_steps(run, ["facts", "latency"], WithoutMemory())

    assert started == ["facts", "latency"]
    [failed] = run.figures.lines()
    assert failed["what"] == "step facts: FAILED"
    assert "Cannot allocate memory" in failed["error"]


@pytest.mark.parametrize(
    ("left_s", "bytes_per_s", "num_texts"),
    [(100, 60_000, 400), (13, 60_000, 267), (4, 60_000, 66), (4, None, 400)],
)
def test_scorer_is_measured_with_fewer_texts_where_little_time_is_left(
    run, left_s, bytes_per_s, num_texts, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr("bench.first_gpu.run.time", clock)
    own = replace(run, sizes=REAL, deadline_s=clock.now_s + left_s)
    assert targets.affordable_texts(own, bytes_per_s) == num_texts


def test_speed_of_a_mode_is_compared_with_that_of_bf16(run):
    for mode in (PLAIN, "int8"):
        targets.measure(run, mode)

    found = run.figures.latest
    assert found(f"target {PLAIN}", "times_bf16") is None
    ratio = found("target int8", "bytes_per_s") / found(f"target {PLAIN}", "bytes_per_s")
    assert found("target int8", "times_bf16") == pytest.approx(ratio, abs=0.02)
    for mode in (PLAIN, "int8"):
        assert found(f"offline {mode}: no outputs", "share_of_bare") > 0


def test_short_table_has_failures_and_leaves_details_out():
    lines = [
        {"step": "model", "what": "model int8 triton", "at_s": 1, "budget": 8192, "share": 0.61234},
        {"step": "model", "what": "model int8 triton", "at_s": 1, "budget": 4096, "share": 0.5},
        {"step": "compare", "what": "compile int8: FAILED", "at_s": 1, "error": "why"},
        {"step": "compare", "what": "compile int8", "at_s": 1, "kernels": 3},
        {"step": "facts", "what": "part facts ended", "at_s": 1, "status": 0},
        {"step": "model", "what": "part model ended", "at_s": 1, "status": 1},
    ]
    short, whole = table(lines, is_short=True).splitlines(), table(lines).splitlines()

    assert [row.partition("  ")[0] for row in short] == [
        "model int8 triton",
        "compile int8: FAILED",
        "part model ended",
    ]
    assert "share 0.6123" in short[0]
    assert len(whole) == 5


@pytest.mark.parametrize(
    ("device", "sheet"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 80 GB SXM"),
        ("NVIDIA H200", "H100 80 GB SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB SXM"),
        ("NVIDIA L4", "L4 24 GB"),
        ("NVIDIA L40S", None),
        ("None", None),
    ],
)
def test_peaks_are_those_of_the_card(device, sheet):
    found = data_sheet(device)
    assert (found and found.name) == sheet


def test_sizes_are_those_of_evabyte():
    assert REAL.linear_weights == LINEAR_WEIGHTS


def test_lengths_fill_a_pass():
    assert texts_of(1024, 200) == [200] * 5 + [24]
    assert texts_of(400, 200) == [200, 200]
    assert {len(random_text(length, 0)) for length in mixed_lengths(TINY, 50)} <= set(range(10, 41))


# In nats, of log-probabilities whose standard deviation is 1: fewer bits move them further.
MEAN_DIFFERENCES = {PLAIN: 0.0, "int8": 0.03, "fp8": 0.1, "nf4": 0.25}


@pytest.mark.parametrize("mode", MODES)
def test_exchanged_layers_score_alike_and_can_be_changed_back(run, mode):
    with torch.inference_mode():
        modes = Modes(run)
        expected = Pass(modes.use(PLAIN), [30, 50]).run().log_prob
        ours = Pass(modes.use(mode), [30, 50]).run().log_prob
        again = Pass(modes.use(PLAIN), [30, 50]).run().log_prob

    assert abs(ours - expected).mean() <= MEAN_DIFFERENCES[mode]
    assert (mode == PLAIN) == bool((ours == expected).all())
    assert (again == expected).all()
    assert (mode == PLAIN) or modes.weight_bytes(mode) < 4 * modes.num_parameters


def test_busy_time_counts_overlapping_spans_once():
    assert union([(0, 2), (1, 3), (5, 6), (5.5, 5.75)]) == 4
    assert union([]) == 0


def test_floats_of_a_result_leave_perplexity_out():
    result = {"b": [1.5, {"c": 2.5}], "a": 0.5, "perplexity": 9.5, "n": 3}
    assert list(oracle.floats(result)) == [0.5, 1.5, 2.5]


def test_wheels_are_the_pinned_ones_that_the_machine_lacks():
    lock = (REPOSITORY / "requirements.lock").read_text()
    wanted = wheels.wanted_wheels()

    assert {"pydantic", "orjson", "celery", "bitsandbytes", "gevent", "tzdata"} <= wanted.keys()
    assert wanted.keys() - dict(wheels.lacking(lock)).keys() == {"execnet", "pytest-xdist"}
    assert not wanted.keys() & (wheels.MACHINE_BRINGS | {"torch", "colorama", "cffi"})
    assert all(" \\\n" in pin and "--hash=sha256:" in pin for pin in wanted.values())
    assert wanted["gevent"].startswith("gevent==26.")
    # A name that nothing pins would hide a package that is needed.
    assert all(f"\n{name}==" in f"\n{lock}" for name in wheels.MACHINE_BRINGS)


def test_slim_wheel_has_the_libraries_of_cuda_13_alone_and_a_true_record(tmp_path):
    wheel = tmp_path / "bitsandbytes-1-py3-none-any.whl"
    names = ["b/__init__.py", "b/libbitsandbytes_cpu.so", "b/libbitsandbytes_cuda130.so"]
    unwanted = ["b/libbitsandbytes_cuda118.so", "b/libbitsandbytes_rocm63.so"]
    with zipfile.ZipFile(wheel, "w") as file:
        for name in [*names, *unwanted, "b-1.dist-info/RECORD"]:
            file.writestr(name, name)
    wheels.slim(wheel)

    with zipfile.ZipFile(wheel) as file:
        assert file.namelist() == [*names, "b-1.dist-info/RECORD"]
        record = file.read("b-1.dist-info/RECORD").decode().splitlines()
    assert [line.partition(",")[0] for line in record] == [*names, "b-1.dist-info/RECORD"]
    assert record[0].endswith(",13")


def test_run_of_another_step_keeps_what_is_shared(run):
    other = replace(run, step="model")
    other.put("model int8")
    assert whats(run) == ["model int8"]


@pytest.mark.parametrize("dtype", tiles.LONE_TEXT_TILES, ids=str)
def test_tiles_for_a_lone_text_are_timed_and_compared(run, dtype, monkeypatch):
    """Without a GPU zeros are the product of every tile but one."""
    odd = tiles.LONE_TEXT_TILES[dtype][0]
    monkeypatch.setattr(
        project, "launch_product", lambda x, weight, scales, y, tile: y.fill_(tile == odd)
    )
    tiles.run_lone_text_tiles(run, dtype, is_timed=False)
    assert not run.figures.lines()
    tiles.run_lone_text_tiles(run, dtype, is_timed=True)
    lines = run.figures.lines()
    assert len(lines) == 3 * len(tiles.LONE_TEXT_TILES[dtype])
    assert [line["has_same_bits"] for line in lines] == [False, True, True] * 3
    assert all(line["us"] >= 0 for line in lines)
    assert lines[0]["what"].endswith("tile 64x64x128 4 warps 3 stages, qkvo of 208 rows") == (
        dtype == torch.int8
    )


def test_captured_pass_computes_other_passes_of_its_kind(run):
    with torch.inference_mode():
        model = Modes(run).model
        first, other = Pass(model, [48, 16]), Pass(model, [16, 48], seed=1)
        captured = CapturedPass(run, model, first)
        for one in (other, first):
            captured.load(one)
            captured.replay()
            expected = project.run_layers(model, captured.plan(one))
            assert torch.equal(captured.hidden, expected)
        captured.load(other)
        assert torch.equal(captured.hidden, expected)  # until it is replayed
        captured.replay()
        assert not torch.equal(captured.hidden, expected)


def test_captured_pass_refuses_another_kind(run):
    with torch.inference_mode():
        model = Modes(run).model
        captured = CapturedPass(run, model, Pass(model, [40, 9]))
        for lengths in ([40, 30], [9, 40]):  # more tokens; segments that are padded differently
            with pytest.raises(ValueError, match="other numbers of tokens, blocks or chunks"):
                captured.load(Pass(model, lengths))


def test_captured_passes_are_measured_in_every_mode(run):
    graphs.measure(run)
    lines = [line for line in run.figures.lines() if line["what"].startswith("graph ")]
    assert {line["what"] for line in lines} == {f"graph {mode}" for mode in MODES}
    assert all(line["passes_with_same_bits"] == line["passes"] >= 2 for line in lines)
