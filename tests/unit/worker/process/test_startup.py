"""Phases of a start: one after the other, without a gap."""

import os
import subprocess
import sys
import time

import pytest

from worker.process.startup import Startup, process_age_s

# Each phase has its time in milliseconds.
ROUNDING_S = 0.005


def test_phases_follow_each_other_without_a_gap():
    began_at = time.monotonic() - 10
    startup = Startup("import", began_at=began_at)
    startup.enter("load")
    startup.enter("warm_up")
    at_least_s = time.monotonic() - began_at
    startup.enter(None)
    at_most_s = time.monotonic() - began_at
    reply = startup.as_json()
    assert list(reply["seconds"]) == ["import", "load", "warm_up"]
    assert reply["seconds"]["import"] >= 10
    total_s = sum(reply["seconds"].values())
    assert at_least_s - ROUNDING_S <= total_s <= at_most_s + ROUNDING_S


def test_phase_that_runs_is_reported_by_name_until_the_start_is_over():
    startup = Startup("import", began_at=time.monotonic())
    startup.enter("download")
    assert startup.as_json()["phase"] == "download"
    assert list(startup.as_json()["seconds"]) == ["import"]
    startup.enter(None)
    assert startup.as_json()["phase"] is None


def test_part_of_a_phase_counts_for_another():
    began_at = time.monotonic() - 10
    startup = Startup("canary", began_at=began_at)
    startup.credit("compile", 3)
    startup.credit("compile", 4)
    startup.enter(None)
    at_most_s = time.monotonic() - began_at - 7
    seconds = startup.as_json()["seconds"]
    assert seconds.keys() == {"compile", "canary"}
    assert seconds["compile"] == 7
    assert 3 - ROUNDING_S <= seconds["canary"] <= at_most_s + ROUNDING_S


def test_what_is_compiled_after_the_start_is_no_part_of_it():
    startup = Startup("canary", began_at=time.monotonic())
    startup.enter(None)
    startup.credit("compile", 3)
    assert list(startup.as_json()["seconds"]) == ["canary"]


def test_phase_that_comes_twice_is_added_up():
    startup = Startup("load", began_at=time.monotonic() - 3)
    startup.enter("quantize")
    startup.enter("load")
    startup.enter(None)
    assert list(startup.as_json()["seconds"]) == ["load", "quantize"]
    assert startup.as_json()["seconds"]["load"] >= 3


def test_age_of_a_process_counts_from_its_start():
    code = "import time; from worker.process.startup import process_age_s; print(process_age_s())"
    began_at = time.monotonic()
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The kernel counts in ticks.
    assert 0 < float(reply.stdout) <= time.monotonic() - began_at + 1 / os.sysconf("SC_CLK_TCK")


def test_name_of_a_program_may_hold_anything(tmp_path):
    (tmp_path / "stat").write_text("1 (a) b (c) S" + " 0" * 18 + " 0 0\n")
    assert process_age_s(tmp_path / "stat") == pytest.approx(
        time.clock_gettime(time.CLOCK_BOOTTIME), abs=1
    )


def test_age_is_nothing_where_linux_does_not_tell(tmp_path):
    assert process_age_s(tmp_path / "nothing") == 0
