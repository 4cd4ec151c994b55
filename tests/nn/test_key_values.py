"""Keys and values, their records, and the pools: known answers and equal forms."""

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from foretaste.nn.collective import CollectiveConfig, CollectiveKeyValues, key_values
from foretaste.nn.key_values import bytes_for, from_bytes, penalty_of, split_heads, to_bytes

KINDS: list[tuple[Literal["full", "collective"], dict[str, Any]]] = [
    ("full", {}),
    ("collective", {"user_dim": 4, "pool_size": 5, "user_type": "fp32"}),
    ("collective", {"user_dim": 4, "pool_size": 300, "user_type": "fp16"}),
    ("collective", {"user_dim": 2, "pool_size": 70_000, "user_type": "int8"}),
    ("collective", {"user_dim": 0, "pool_size": 1}),
    ("collective", {"user_dim": 0, "pool_size": 5, "user_type": "fp32"}),
    ("collective", {"user_dim": 12, "pool_size": 0, "user_type": "int8"}),
    ("collective", {"user_dim": 0, "pool_size": 9, "pool_levels": 4}),
    ("collective", {"user_dim": 2, "pool_size": 300, "pool_levels": 3, "user_type": "fp16"}),
]
every_kind = pytest.mark.parametrize(("kind", "config"), KINDS)


def made(kind: Literal["full", "collective"], config: dict[str, Any]):
    torch.manual_seed(0)
    module = key_values(12, 2, kind, CollectiveConfig(**config), nn.SiLU())
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module.eval()


@every_kind
@torch.no_grad()
def test_records_give_back_keys_and_values(kind, config):
    module, x = made(kind, config), torch.randn(3, 7, 12)
    records = module.pack(x)
    assert records.dtype == torch.uint8
    assert records.shape == (3, 7, module.record_bytes)
    for kept, direct in zip(module.unpack(records), module(x), strict=True):
        torch.testing.assert_close(kept, direct, rtol=1e-5, atol=1e-6)


@every_kind
@torch.no_grad()
def test_pool_arithmetic_equals_rebuilt_keys_and_values(kind, config):
    module, x = made(kind, config), torch.randn(3, 7, 12)
    records = module.pack(x)
    key, value = (split_heads(part, 2) for part in module.unpack(records))  # [3, 2, 7, K]
    query, weights = torch.randn(3, 2, 4, module.key_dim // 2), torch.rand(3, 2, 4, 7)
    torch.testing.assert_close(module.scores(query, records), query @ key.mT)
    torch.testing.assert_close(module.mix(weights, records), weights @ value)


@every_kind
def test_no_events_have_no_records(kind, config):
    module, nothing = made(kind, config), torch.empty(2, 0, 12)
    records = module.pack(nothing)
    assert records.shape == (2, 0, module.record_bytes)
    for form in (module.unpack(records), module(nothing), module.train()(nothing)):
        assert [part.shape for part in form] == 2 * [(2, 0, module.key_dim)]
    assert module.penalty() is None  # and no NaN


def test_bytes_of_a_record():
    sizes = [made(kind, config).record_bytes for kind, config in KINDS]
    assert sizes == [2 * 12 * 4, 8 * 4 + 2, 8 * 2 + 4, 4 + 6, 2, 2, 24, 8, 8 + 12]


@given(st.integers(1, 2**40), st.data())
@settings(max_examples=50, deadline=None)
def test_numbers_take_the_fewest_bytes(count: int, data: st.DataObject):
    width = bytes_for(count)
    assert 256 ** (width - 1) < max(count, 2) <= 256**width
    numbers = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1)))
    assert from_bytes(to_bytes(numbers, width)).tolist() == numbers.tolist()


def collective(**config: Any) -> CollectiveKeyValues:
    module = made("collective", config)
    assert isinstance(module, CollectiveKeyValues)
    return module


def test_gates_in_training_only():
    module, x = collective(user_dim=0, pool_size=4), torch.randn(6, 12)
    assert module.router is not None and module.pool is not None
    height, index = module.router(x).unflatten(-1, (2, -1)).max(-1)  # [6, 2]
    entries = module.pool.flatten(2)  # [2, 4, 12]
    hard, _ = module(x)
    torch.testing.assert_close(hard, entries[0, index[:, 0]])
    gate = torch.sigmoid(height[:, :1])
    gated, _ = module.train()(x)
    torch.testing.assert_close(gated, gate * hard)
    module.eval().gated = True
    torch.testing.assert_close(module(x)[0], gate * hard)


def test_losses_of_a_hand_computed_case():
    module = collective(user_dim=0, pool_size=2, peak=3.0, balance=5.0).train()
    assert module.router is not None
    with torch.no_grad():
        module.router.weight.zero_()
        # Keys: entries score 2 and 0; values: both score 1.
        module.router.bias.copy_(torch.tensor([2.0, 0.0, 1.0, 1.0]))
    module(torch.randn(4, 12))
    high, low = torch.sigmoid(torch.tensor(2.0)), torch.sigmoid(torch.tensor(1.0))
    peak = -(high.log() + low.log())
    # softmax of (2, 0) is (sigmoid(2), 1 - sigmoid(2)); its divergence from (1/2, 1/2)
    share = torch.stack([high, 1 - high])
    balance = (share * (2 * share).log()).sum()
    found = penalty_of(module)
    assert found is not None
    torch.testing.assert_close(found, 3 * peak + 5 * balance)


def test_padding_has_no_part_in_the_losses():
    module, x = collective(user_dim=4, pool_size=3).train(), torch.randn(5, 12)
    module(x)
    alone = penalty_of(module)
    padded = torch.cat([x, 100 * torch.randn(3, 12)]).unflatten(0, (2, 4))
    module(padded)
    real = torch.tensor([[True] * 4, [True, False, False, False]])
    found = penalty_of(module, real)
    assert alone is not None and found is not None
    torch.testing.assert_close(found, alone)


def test_gradients_reach_everything_that_learns():
    module, x = collective(user_dim=4, pool_size=3).train(), torch.randn(50, 12)
    key, value = module(x)
    penalty = penalty_of(module)
    assert penalty is not None
    (key.square().sum() + value.square().sum() + penalty).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradients_reach_every_level():
    module, x = collective(user_dim=0, pool_size=4, pool_levels=3).train(), torch.randn(90, 12)
    key, value = module(x)
    penalty = penalty_of(module)
    assert penalty is not None
    (key.square().sum() + value.square().sum() + penalty).backward()
    assert module.router is not None and module.router.weight.grad is not None
    assert module.router.weight.grad.abs().sum() > 0 and module.whole.weight.grad is None
    assert module.pool is not None and module.pool.grad is not None
    assert module.pool.grad.abs().sum((0, 2, 3)).unflatten(0, (3, 4)).sum(1).gt(0).all()


def test_an_untrained_router_has_no_gates_and_learns_nothing():
    module = collective(user_dim=0, pool_size=4, train_router=False)
    x = torch.randn(6, 12)
    hard, _ = module(x)
    torch.testing.assert_close(module.train()(x)[0], hard)
    assert penalty_of(module) is None
    assert not any(p.requires_grad for n, p in module.named_parameters() if "router" in n)


def test_peak_loss_opens_the_gates_and_balance_evens_the_use():
    def trained(**weights: float) -> tuple[float, float]:
        module, x = collective(user_dim=0, pool_size=8, **weights).train(), torch.randn(400, 12)
        assert module.router is not None
        with torch.no_grad():
            module.router.bias[0] += 4  # one entry is everybody's choice
        optimizer = torch.optim.Adam(module.parameters(), 0.05)
        for _ in range(150):
            module(x)
            penalty = penalty_of(module)
            assert penalty is not None
            optimizer.zero_grad()
            penalty.backward()
            optimizer.step()
        with torch.no_grad():
            height, index = module.router(x).unflatten(-1, (2, -1)).max(-1)
        most = index[:, 0].bincount(minlength=8).max() / 400
        return float(torch.sigmoid(height).mean()), float(most)

    gate_with, _ = trained(peak=1.0, balance=0.0)
    gate_without, most_with = trained(peak=0.0, balance=1.0)
    assert gate_with > 0.98 > gate_without
    assert most_with < 0.35


def test_what_does_not_fit_is_said():
    assert CollectiveConfig(user_dim=4).problem(8, 2) is None
    wrong: list[tuple[dict[str, Any], int, int, str]] = [
        ({"user_dim": 3}, 8, 2, "multiple"),
        ({"user_dim": 8}, 8, 2, "leaves nothing"),
        ({"user_dim": 10, "pool_size": 0}, 8, 2, "leaves nothing"),
        ({"user_dim": 0, "pool_size": 0}, 8, 2, "both 0"),
        ({"user_dim": 2, "pool_size": 0, "pool_levels": 2}, 8, 2, "pool_levels = 2 needs pools"),
        ({"train_router": False, "pool_levels": 2}, 8, 2, "router that is trained"),
    ]
    for config, dim, heads, word in wrong:
        problem = CollectiveConfig(**config).problem(dim, heads)
        assert problem is not None and word in problem
