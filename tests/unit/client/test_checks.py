"""What `evascore doctor` says of the model that is loaded."""

import pytest

from evascore.checks import _model

FACTS = {"name": "demo", "fingerprint": "88b2e1475b32", "quantization": "int8", "dtype": "float32"}


def test_model_that_saves_no_time_gets_a_line_of_its_own():
    advice = "int8 saves memory but no time on this CPU"
    model, speed = _model({**FACTS, "is_demo": False, "advice": advice})
    assert model.state == "ok"
    assert (speed.name, speed.state, speed.detail) == ("speed", "warning", advice)
    assert "EVASCORE_QUANTIZATION=none" in speed.remedy


@pytest.mark.parametrize("facts", [{}, {"advice": None}], ids=["older worker", "no advice"])
def test_other_models_get_one_line(facts):
    [model] = _model({**FACTS, **facts})
    assert model.state == "ok"
