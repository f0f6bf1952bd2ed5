"""The measurement of the host's time scores real requests with a model that computes nothing."""

import pytest

from bench.host_time import OUTPUTS, measure


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_kind_of_output_is_measured(name):
    assert min(measure(OUTPUTS[name], num_rounds=1).values()) > 0
