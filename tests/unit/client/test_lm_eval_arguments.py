"""The model that `python -m evascore.lm_eval` evaluates."""

import pytest

from evascore.lm_eval.__main__ import _model_if_none


@pytest.mark.parametrize("named", ["--tasks a", "--tasks=a", "-t a", "-ta"])
@pytest.mark.parametrize("model", ["--model hf", "--model=hf", "-M hf", "-Mhf"])
def test_model_is_evascore_unless_the_arguments_name_one(named, model):
    assert _model_if_none(named.split()) == ["--model", "evascore"]
    assert _model_if_none([*named.split(), *model.split()]) == []


def test_command_without_tasks_gets_no_model():
    assert _model_if_none(["ls", "tasks", "--model_args", "a=b"]) == []
