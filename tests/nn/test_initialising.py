"""First weights."""

from __future__ import annotations

import pytest
import torch

from foretaste.nn.initialising import FLATTEST, STEEPEST, falling


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_biases_fall_at_a_rate_of_each_head(heads: int):
    found = falling(heads, 9)
    assert found.shape == (heads, 9) and (found[:, 0] == 0).all()
    rates = found[:, :-1] - found[:, 1:]
    torch.testing.assert_close(rates, rates[:, :1].expand_as(rates))  # the same at every distance
    assert rates[0, 0] == pytest.approx(STEEPEST)
    assert heads == 1 or rates[-1, 0] == pytest.approx(FLATTEST)
    assert (rates[:-1] > rates[1:]).all()


def test_an_event_of_several_places_falls_as_one_of_one():
    torch.testing.assert_close(falling(2, 12, 4)[:, ::4], falling(2, 3))
