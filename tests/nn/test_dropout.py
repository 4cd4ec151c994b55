"""Dropout: its rate, its expectation, its reproducibility."""

import pytest
import torch

from foretaste.nn.dropout import Dropout, dropout_mask


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_rate_and_expectation(p: float):
    torch.manual_seed(0)
    rounded = round(p * 256) / 256
    found = Dropout(p)(torch.ones(1000, 1003))
    # A million draws: five standard deviations are 0.0025 at most.
    assert (found == 0).float().mean().item() == pytest.approx(rounded, abs=0.0025)
    assert found.mean().item() == pytest.approx(1, abs=0.015)
    torch.testing.assert_close(found.max().item(), 1 / (1 - rounded))


@pytest.mark.parametrize("p", [0.001, 0.999])
def test_extreme_rates_are_neither_nothing_nor_everything(p: float):
    torch.manual_seed(0)
    kept = (dropout_mask(torch.ones(100_000), p) > 0).float().mean().item()
    assert 0 < kept < 1


def test_elements_fall_independently():
    torch.manual_seed(0)
    kept = (dropout_mask(torch.ones(200_000, 8), 0.5) > 0).float()
    correlation = torch.corrcoef(kept.T) - torch.eye(8)  # the eight bytes of a draw
    assert correlation.abs().max() < 0.015
    following = torch.corrcoef(torch.stack([kept[1:, 0], kept[:-1, 0]]))[0, 1]
    assert abs(following) < 0.015


def test_the_seed_decides():
    x, layer = torch.randn(50, 7), Dropout(0.3)
    torch.manual_seed(1)
    one, second = layer(x), layer(x)
    torch.manual_seed(1)
    torch.testing.assert_close(layer(x), one, rtol=0, atol=0)
    assert not torch.equal(one, second)


def test_nothing_happens_outside_training_or_at_rate_zero():
    x = torch.randn(5, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0, 2), (7, 5, 3)])
def test_any_shape(shape: tuple[int, ...]):
    assert Dropout(0.5)(torch.ones(shape)).shape == shape


def test_gradients_pass_where_values_do():
    torch.manual_seed(0)
    x = torch.ones(1000, requires_grad=True)
    found = Dropout(0.5)(x)
    found.sum().backward()
    torch.testing.assert_close(x.grad, found.detach())
    assert Dropout(0.5)(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0])
def test_a_rate_must_be_a_share(p: float):
    with pytest.raises(ValueError, match="dropout"):
        Dropout(p)
