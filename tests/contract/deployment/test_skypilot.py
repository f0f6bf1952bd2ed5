"""The SkyPilot task file: its settings are ours, its scripts are shell, its costs are bounded."""

import subprocess

import pytest
import yaml

from contract.setting_refusals import PREFIX
from contract.settings import REPOSITORY, load_settings

TASK = yaml.safe_load((REPOSITORY / "deploy" / "skypilot" / "evascore.yaml").read_text())


def test_settings_exist_and_fit_together():
    load_settings({name: str(v) for name, v in TASK["envs"].items() if name.startswith(PREFIX)})


def test_worker_does_not_score_on_the_cpu_of_a_gpu_machine():
    assert TASK["resources"]["accelerators"]
    assert TASK["envs"]["EVASCORE_DEVICE"] == "cuda"


@pytest.mark.parametrize("script", ["setup", "run"])
def test_script_is_understood_by_the_shell(script):
    subprocess.run(["bash", "-n"], input=TASK[script], text=True, check=True)


def test_costs_are_bounded():
    resources = TASK["resources"]
    assert resources["use_spot"] is True
    assert 0 < resources["max_hourly_cost"] <= 1
    assert resources["autostop"]["down"] is True
