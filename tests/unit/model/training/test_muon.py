"""Muon applies orthogonalized momentum."""

import pytest
import torch
from torch import nn

from model.training.muon import Muon, orthogonalize


@pytest.mark.parametrize(("num_out", "num_in"), [(32, 32), (32, 80), (80, 32)])
def test_orthogonalized_matrices_have_singular_values_near_one(num_out, num_in):
    matrices = torch.randn(3, num_out, num_in, generator=torch.Generator().manual_seed(1))

    values = torch.linalg.svdvals(orthogonalize(matrices))

    # The smallest ones of a square random matrix start near 0 and may stay behind.
    assert values.max() < 1.3
    assert values.quantile(0.1) > 0.6


def test_step_goes_down_the_gradient_by_the_learning_rate():
    weight = nn.Parameter(torch.zeros(4, 4))
    weight.grad = 100 * torch.eye(4)

    Muon([weight], lr=0.5).step()

    assert (weight.diag() < -0.3).all()
    assert (weight.diag() > -0.65).all()
    assert (weight - weight.diag().diag()).abs().max() < 1e-5
