"""Losses against the plain formulas, with their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foretaste.nn import losses
from foretaste.nn.losses import gbce, linear_cross_entropy, sampled_softmax


def example(events: int = 150, items: int = 40, dim: int = 6, dtype=torch.float32):
    """Hidden vectors, item vectors and targets, with gradients asked for."""
    torch.manual_seed(0)
    hidden = torch.randn(events, dim, dtype=dtype, requires_grad=True)
    weight = torch.randn(items, dim, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(items, (events,))


def gradients(value: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, leaves)


# --- The whole catalog ---------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 40 * 70, 10**9])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_equals_cross_entropy_with_gradients_in_any_chunks(at_once, scale, monkeypatch):
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", at_once)
    hidden, weight, targets = example()
    value = linear_cross_entropy(hidden, weight, targets)
    plain = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    torch.testing.assert_close(value, plain)
    for mine, other in zip(
        gradients(value * scale, hidden, weight),
        gradients(plain * scale, hidden, weight),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_gradients_are_the_slopes():
    hidden, weight, targets = example(5, 4, 3, torch.float64)

    def value(hidden: Tensor, weight: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, weight, targets)

    # The value is summed in float32, so the step must be larger than float64 would need.
    assert torch.autograd.gradcheck(value, (hidden, weight), eps=1e-2, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("size", [30.0, 1000.0])
def test_extreme_logits_stay_finite(size: float):
    hidden, weight, targets = example()
    with torch.no_grad():
        hidden *= size
    value = linear_cross_entropy(hidden, weight, targets)
    plain = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    torch.testing.assert_close(value, plain, rtol=1e-5, atol=1e-3)
    assert all(part.isfinite().all() for part in gradients(value, hidden, weight))


def test_half_precision_is_close():
    hidden, weight, targets = example(300, 500, 16)
    whole = linear_cross_entropy(hidden, weight, targets)
    half = linear_cross_entropy(hidden, weight, targets, half=True)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=5e-3, atol=0)
    for mine, other in zip(
        gradients(half, hidden, weight), gradients(whole, hidden, weight), strict=True
    ):
        assert (mine - other).norm() < 0.02 * other.norm()


def test_a_uniform_guess_costs_the_logarithm_of_the_catalog():
    value = linear_cross_entropy(torch.zeros(3, 2), torch.randn(50, 2), torch.tensor([0, 7, 49]))
    assert value.item() == pytest.approx(3 * math.log(50))
    one_item = linear_cross_entropy(torch.randn(3, 2), torch.randn(1, 2), torch.zeros(3).long())
    assert one_item.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_an_empty_batch_costs_nothing(half: bool):
    hidden, weight, targets = example(0)
    value = linear_cross_entropy(hidden, weight, targets, half=half)
    assert value.item() == 0
    assert (gradients(value, weight)[0] == 0).all()


# --- Sampled -------------------------------------------------------------------------------------


def test_sampled_softmax_over_everything_is_the_softmax():
    hidden, weight, targets = example()
    everything = torch.arange(len(weight))
    value = sampled_softmax(hidden, weight, targets, everything, torch.zeros(len(weight)))
    plain = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    torch.testing.assert_close(value, plain)
    for mine, other in zip(
        gradients(value, hidden, weight), gradients(plain, hidden, weight), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_sampled_softmax_by_hand():
    # Logits 1, 2, 3 of items 0, 1, 2; item 0 is wanted, and drawn once by accident.
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    log_q = torch.tensor([0.5, 2.0, 1.0]).log()
    value = sampled_softmax(
        hidden, weight, torch.tensor([0]), torch.tensor([1, 0, 2, 1]), log_q
    )  # fmt: skip
    wanted, others = math.e, 2 * math.exp(2) / 2 + math.exp(3)
    assert value.item() == pytest.approx(-math.log(wanted / (wanted + others)))


def test_sampled_softmax_learns_the_true_frequencies():
    """Fitted with popular negatives, the scores are those of the softmax over everything."""
    torch.manual_seed(0)
    items, drawn = 20, 256
    share = 1 / torch.arange(1, items + 1)
    share /= share.sum()
    log_q = (share * drawn).log()
    weight = torch.zeros(items, 1, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.02)
    hidden = torch.ones(512, 1)
    average = torch.zeros(items)
    for step in range(600):
        targets = torch.multinomial(share, 512, replacement=True)
        negatives = torch.multinomial(share, drawn, replacement=True)
        optimizer.zero_grad()
        (sampled_softmax(hidden, weight, targets, negatives, log_q) / 512).backward()
        optimizer.step()
        if step >= 300:
            average += weight.detach().squeeze(1).softmax(0) / 300
    assert (share * (share / average).log()).sum() < 0.002
    assert average[0].item() == pytest.approx(share[0].item(), rel=0.04)


def test_sampled_softmax_of_an_empty_batch_costs_nothing():
    hidden, weight, targets = example(0)
    negatives = torch.arange(5)
    assert sampled_softmax(hidden, weight, targets, negatives, torch.zeros(40)).item() == 0
    assert gbce(hidden, weight, targets, torch.zeros(0, 5).long()).item() == 0


def test_gbce_by_hand():
    # Two events, three items, two negatives each: a = 2 / 2 = 1, so beta = 1 whatever t is.
    hidden = torch.tensor([[1.0], [2.0]])
    weight = torch.tensor([[0.5], [-1.0], [0.25]])
    targets, negatives = torch.tensor([0, 1]), torch.tensor([[1, 2], [0, 1]])

    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    # The second negative of the second event is its target and is left out.
    expected = -(
        log_sigmoid(0.5)
        + log_sigmoid(1.0)
        + log_sigmoid(-0.25)
        + log_sigmoid(-2.0)
        + log_sigmoid(-1.0)
    )
    for calibration in (0.0, 1.0):
        value = gbce(hidden, weight, targets, negatives, calibration=calibration)
        assert value.item() == pytest.approx(expected)


@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
def test_gbce_is_the_papers_formula(t: float, monkeypatch):
    monkeypatch.setattr(losses, "NUMBERS_AT_ONCE", 7 * 8 * 6)  # seven events, five times
    hidden, weight, targets = example(30, 41)
    negatives = (targets[:, None] + torch.randint(1, 41, (30, 8))) % 41
    value = gbce(hidden, weight, targets, negatives, calibration=t)
    a = 8 / 40
    beta = a * (t * (1 - 1 / a) + 1 / a)
    assert beta == pytest.approx({0.0: 1.0, 0.75: 0.4, 1.0: 0.2}[t])
    logits = hidden @ weight.T
    positive = torch.sigmoid(logits.gather(1, targets[:, None])) ** beta
    expected = -positive.log().sum() - (1 - torch.sigmoid(logits.gather(1, negatives))).log().sum()
    torch.testing.assert_close(value, expected)
    for ours, plain in zip(
        gradients(3 * value, hidden, weight), gradients(3 * expected, hidden, weight), strict=True
    ):
        torch.testing.assert_close(ours, plain)


def test_gbce_keeps_no_vectors_of_the_sampled_items():
    hidden, weight, targets = example(30, 41)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        gbce(hidden, weight, targets, torch.randint(41, (30, 64)))
    assert max(kept) <= max(hidden.numel(), weight.numel())


def test_gbce_with_more_draws_than_items_is_plain_cross_entropy():
    hidden, weight, targets = example(10, 4)
    negatives = (targets[:, None] + torch.randint(1, 4, (10, 50))) % 4
    one = gbce(hidden, weight, targets, negatives, calibration=1.0)
    plain = gbce(hidden, weight, targets, negatives, calibration=0.0)
    torch.testing.assert_close(one, plain)
