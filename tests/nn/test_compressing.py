"""Collective attention begun from full attention: what it must give again, exactly or nearly."""

from typing import Any

import pytest
import torch

from foretaste.nn.attention import WindowedAttention, distances
from foretaste.nn.collective import CollectiveConfig, CollectiveKeyValues, key_values
from foretaste.nn.compressing import k_means
from foretaste.recommenders.hstu import HSTUConfig, HSTULayer

DIM, HEADS, WINDOW = 12, 3, 8


def attention(**config: Any) -> WindowedAttention:
    kind = "collective" if config else "full"
    made = key_values(DIM, HEADS, kind, CollectiveConfig(**config))
    return WindowedAttention(DIM, HEADS, WINDOW, made).eval()


def full_and_events() -> tuple[WindowedAttention, torch.Tensor]:
    torch.manual_seed(0)
    full = attention()
    for parameter in full.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    return full, torch.randn(5, 8, DIM)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"user_dim": DIM, "pool_size": 0, "user_type": "fp32"}, id="all kept"),
        pytest.param({"user_dim": 0, "pool_size": 40}, id="an entry for every event"),
        pytest.param({"user_dim": 6, "pool_size": 40, "user_type": "fp32"}, id="both"),
    ],
)
@torch.no_grad()
def test_where_nothing_is_lost_it_is_the_same_attention(config: dict[str, Any]):
    full, x = full_and_events()
    made = attention(**config)
    made.begin_from(full, x.flatten(0, 1), seed=0)
    torch.testing.assert_close(made(x), full(x), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_eight_bits_lose_little():
    full, x = full_and_events()
    made = attention(user_dim=DIM, pool_size=0, user_type="int8")
    made.begin_from(full, x.flatten(0, 1), seed=0)
    assert (made(x) - full(x)).std() < 0.1 * full(x).std()


@torch.no_grad()
def test_more_bytes_lose_less_and_gates_begin_open():
    full, x = full_and_events()
    lost = []
    for config in (
        {"user_dim": 0, "pool_size": 2},
        {"user_dim": 0, "pool_size": 8},
        {"user_dim": 3, "pool_size": 8, "user_type": "fp32"},
        {"user_dim": 6, "pool_size": 16, "user_type": "fp32"},
    ):
        made = attention(**config)
        made.begin_from(full, x.flatten(0, 1), seed=0)
        lost.append(float((made(x) - full(x)).square().mean()))
        hard = made(x)
        made.key_values.gated = True  # type: ignore[assignment]
        assert (made(x) - hard).std() < 0.2 * hard.std()
    assert lost == sorted(lost, reverse=True)


@torch.no_grad()
def test_every_level_says_more_and_is_sorted_by_nearness():
    full, x = full_and_events()
    events = x.flatten(0, 1)
    lost = []
    for config in ({"pool_levels": 1}, {"pool_levels": 2}, {"pool_levels": 4}):
        made = attention(user_dim=0, pool_size=4, **config)
        made.begin_from(full, events, seed=0)
        lost.append(float((made(x) - full(x)).square().mean()))
        hard = made(x)
        made.key_values.gated = True  # type: ignore[assignment]
        assert (made(x) - hard).std() < 0.2 * hard.std()
    assert lost[0] > lost[1] > lost[2] and lost[2] < 0.6 * lost[0]
    keys = made.key_values
    assert isinstance(keys, CollectiveKeyValues) and keys.pool is not None
    # The entry of a level is the nearest to what those before it leave of the key.
    missing, levels = keys.whole(events).chunk(2, -1)[0], keys.pool[0].flatten(1).split(4)
    for pool, chosen in zip(levels, keys.choices(events)[:, 0].T, strict=True):
        assert torch.equal(torch.cdist(missing, pool).argmin(1), chosen)
        missing = missing - pool[chosen]


@torch.no_grad()
def test_levels_beside_own_numbers_lose_less_than_either_alone():
    full, x = full_and_events()

    def lost(**config: Any) -> float:
        made = attention(user_type="fp32", **config)
        made.begin_from(full, x.flatten(0, 1), seed=0)
        return float((made(x) - full(x)).square().mean())

    both = lost(user_dim=3, pool_size=4, pool_levels=3)
    assert both < lost(user_dim=3, pool_size=4) and both < lost(user_dim=3, pool_size=0)
    assert both < lost(user_dim=0, pool_size=4, pool_levels=3)


@torch.no_grad()
def test_a_router_that_is_not_trained_stays_at_random_and_pools_are_fitted_to_it():
    full, x = full_and_events()
    events = x.flatten(0, 1)
    made = attention(user_dim=0, pool_size=8, train_router=False)
    router = made.key_values.router
    assert isinstance(router, torch.nn.Linear)
    before = router.weight.clone(), router.bias.clone()
    made.begin_from(full, events, seed=0)
    assert torch.equal(router.weight, before[0]) and torch.equal(router.bias, before[1])
    # Each event has the mean of what the events of its entry have.
    key, _ = made.key_values(events)
    query = made.query(events)  # turned as keys are
    chosen = made.key_values.choices(events)[:, 0, 0]  # type: ignore[operator]
    whole = full.query(events) @ full.key_values(events)[0].T  # [asking, events], all heads
    for entry in chosen.unique():
        of = chosen == entry
        torch.testing.assert_close(query @ key[of][0], whole[:, of].mean(1), rtol=1e-3, atol=1e-3)

    def lost(**config: Any) -> float:
        begun = attention(user_dim=0, **config)
        begun.begin_from(full, events, seed=0)
        return float((begun(x) - full(x)).square().mean())

    trained, one = lost(pool_size=8), lost(pool_size=1)
    assert trained < float((made(x) - full(x)).square().mean()) < one


@torch.no_grad()
def test_attention_without_softmax_begins_from_full_too():
    shape: dict[str, Any] = {"dim": DIM, "heads": HEADS, "window": WINDOW}
    torch.manual_seed(0)
    full = HSTULayer(HSTUConfig(**shape), 1).eval()
    for parameter in full.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    x, back = torch.randn(5, 8, DIM), distances(8, 8, torch.device("cpu"))[None]
    lost = []
    for collective in (
        {"user_dim": 0, "pool_size": 20},
        {"user_dim": 6, "pool_size": 20, "user_type": "fp32"},
        {"user_dim": 6, "pool_size": 20, "pool_levels": 3, "user_type": "fp32"},
        {"user_dim": 0, "pool_size": 40},  # an entry for every event
    ):
        made = HSTULayer(HSTUConfig(**shape, attention="collective", collective=collective), 1)  # type: ignore[arg-type]
        same = {name: w for name, w in full.state_dict().items() if "key_values" not in name}
        made.eval().load_state_dict(same, strict=False)
        made.begin_from(full, full.norm(x).flatten(0, 1), seed=0)
        expected = full(x, x, back, None)
        lost.append(float((made(x, x, back, None) - expected).std() / (expected - x).std()))
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 1e-3


def test_k_means_finds_what_is_apart_and_leaves_no_centre_empty():
    torch.manual_seed(1)
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    vectors = (places[:, None] + 0.1 * torch.randn(4, 50, 2)).flatten(0, 1)
    for seed in range(5):
        centres = k_means(vectors, 4, seed)
        assert (torch.cdist(places, centres).amin(1) < 0.2).sum() >= 3
        assert torch.equal(centres, k_means(vectors, 4, seed))
        nearest = torch.cdist(vectors, centres).argmin(1)
        assert len(nearest.unique()) == 4
