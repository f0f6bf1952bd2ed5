"""The schedule follows the training clock."""

import pytest

from model.training.schedule import Phase, learning_rate_factor, phase_at


def test_learning_rate_warms_up_holds_and_falls_to_zero():
    assert learning_rate_factor(0.0) == pytest.approx(0.001)
    assert learning_rate_factor(0.25) == 1.0
    assert learning_rate_factor(0.75) == pytest.approx(0.5)
    assert learning_rate_factor(1.0) == 0.0


@pytest.mark.parametrize(("progress", "batch_size"), [(0.0, 4), (0.49, 4), (0.5, 8), (1.0, 8)])
def test_last_phase_that_has_begun_holds(progress, batch_size):
    phases = (Phase(0.0, 4, 64, 2), Phase(0.5, 8, 64, 6))

    assert phase_at(progress, phases).batch_size == batch_size
