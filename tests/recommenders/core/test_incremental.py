"""What is kept of users answers as their whole histories do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.sequences import Sequences, offsets_of
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.nn.collective import LEVELS, CollectiveKeyValues
from foretaste.nn.key_values import KeyValues
from foretaste.recommenders.core import incremental
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.incremental import IncrementalRecommender
from foretaste.recommenders.core.registry import find, names
from foretaste.recommenders.core.sequence import Histories
from foretaste.recommenders.core.windowed import WindowedNetwork

INCREMENTAL = [name for name in names() if issubclass(find(name), IncrementalRecommender)]
ITEMS = 300
COLLECTIVE: dict[str, Any] = {"user_dim": 4, "pool_size": 6, "user_type": "fp32"}
WAYS: list[dict[str, Any]] = [
    {"attention": "full"},
    {"attention": "collective", "collective": COLLECTIVE},
    {"attention": "collective", "collective": COLLECTIVE | {"user_type": "fp16"}},
    {"attention": "collective", "collective": COLLECTIVE | {"user_type": "int8"}},
    {"attention": "collective", "collective": COLLECTIVE | {"user_dim": 0}},
    {"attention": "collective", "collective": {"user_dim": 4, "pool_size": 256}},
    {"attention": "collective", "collective": COLLECTIVE, "first_layer": "collective"},
    {"attention": "collective", "collective": COLLECTIVE | {"user_dim": 0, "pool_levels": 3}},
]
NAMES = ["full", "fp32", "fp16", "int8", "pool only", "large pool", "all layers", "levels"]
READABLE = 3 * (4 - 1) + 1
every_network = pytest.mark.parametrize("name", INCREMENTAL)
every_way = pytest.mark.parametrize("way", WAYS, ids=NAMES)


def network(name: str, **parameters: Any) -> WindowedNetwork:
    """Random weights large enough that everything matters."""
    torch.manual_seed(0)
    model = find(name)(**{"dim": 8, "window": 4, "layers": 3, **parameters})
    assert isinstance(model, IncrementalRecommender)
    made = model._network(ITEMS).eval()
    assert isinstance(made, WindowedNetwork)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return made


def events(count: int, seed: int, users: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    items = torch.from_numpy(rng.integers(0, ITEMS, (users, count)))
    times = torch.from_numpy(1_300_000_000_000 + rng.integers(0, 10**9, (users, count)).cumsum(1))
    return items, times


def close(one: torch.Tensor, other: torch.Tensor, way: dict[str, Any] | None = None) -> None:
    """Equal to float32. A number halfway between two that are kept may be rounded to either."""
    kept = (way or {}).get("collective", {"user_type": "fp32"})
    atol = {"fp32": 1e-5, "fp16": 1e-3, "int8": 1e-2}[kept.get("user_type", "int8")]
    torch.testing.assert_close(one, other, rtol=1e-5, atol=atol)


def parts(made: WindowedNetwork) -> list[KeyValues]:
    """Keys and values of every layer."""
    return [layer.key_values for layer in made._layers]


@contextmanager
def packing(made: WindowedNetwork) -> Iterator[list[list[torch.Tensor]]]:
    """The records of new events that every layer makes meanwhile."""
    made.first_layer()  # made now, not to be taken for new events

    def watch(part: KeyValues) -> list[torch.Tensor]:
        pack, found = part.pack, []
        part.pack = lambda x: found.append(pack(x)) or found[-1]
        return found

    yield [watch(part) for part in parts(made)]
    for part in parts(made):
        del part.pack


def whole(made: WindowedNetwork, histories: Histories) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The answer from whole histories, and what every layer makes keys and values of."""
    read: list[torch.Tensor] = []
    hooks = [
        part.register_forward_hook(lambda _, given, __: read.append(given[0]))
        for part in parts(made)
    ]
    answer = made.last(histories)
    for hook in hooks:
        hook.remove()
    return answer, read


def scores_of(part: CollectiveKeyValues, x: torch.Tensor) -> torch.Tensor:
    """Scores of all entries of all levels, ``[..., 2, L, m]``."""
    routed, pool = part._route(x), part.pool
    assert pool is not None
    scores = [routed.scores]
    pools = pool.flatten(2).unflatten(1, (-1, part.config.pool_size))  # [2, L, m, K]
    for level in range(1, part.config.pool_levels):
        missing = part.whole(x).unflatten(-1, (2, -1))
        for before in range(level):
            chosen = routed.index[..., before]
            rows = [pools[of, before][chosen[..., of]] for of in (0, 1)]
            missing = missing - torch.stack(rows, -2)
        far = [torch.cdist(missing[..., of, :], pools[of, level]) for of in (0, 1)]
        scores.append(-torch.stack(far, -2))
    return torch.stack(scores, -2)


def alike(
    made: WindowedNetwork, records: list[torch.Tensor], read: list[torch.Tensor]
) -> torch.Tensor:
    """Of which users no key or value that can matter was rounded another way, bool ``[B]``.

    Layer by layer the records of a state, and what ``whole`` gives. Where all is equal below a
    layer, its numbers may differ by one step, and its choices where two scores are the same.
    """
    same = torch.ones(len(read[0]), dtype=torch.bool)
    layers = zip(parts(made), records, read, strict=True)
    for depth, (part, ours, x) in enumerate(layers):
        count = (len(read) - depth) * (made.window - 1) + 1
        count = min(count, ours.shape[1], x.shape[1])
        ours, x = ours[same, -count:], x[same, -count:]
        theirs = part.pack(x)
        if isinstance(part, CollectiveKeyValues):
            int8, fp16 = (part.config.user_type == kind for kind in ("int8", "fp16"))
            torch.testing.assert_close(
                part._kept(ours),
                part._kept(theirs),
                rtol=2**-10 if fp16 else 1e-5,
                atol=1.01 * float(part.scale.abs().max()) / LEVELS if int8 else 1e-5,
            )
            if part.router is not None:
                best = scores_of(part, x).topk(2).values  # [B, events, 2, L, 2]
                other = part._indices(ours) != part._indices(theirs)
                other[..., 1:] &= ~other[..., :-1]  # what follows another choice is another choice
                assert (best[other][:, 0] - best[other][:, 1] < 1e-4).all()
        both = zip(part.unpack(ours), part.unpack(theirs), strict=True)
        equal = [torch.isclose(one, two, rtol=1e-5, atol=1e-5).all(-1).all(-1) for one, two in both]
        same[same.clone()] = equal[0] & equal[1]
    return same


ACTS = st.tuples(st.sampled_from(["extend", "extend", "forget", "rebuild"]), st.integers(1, 9))


@every_network
@every_way
@given(acts=st.lists(ACTS, min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_a_state_extended_is_the_state_computed_at_once(
    name: str, way: dict[str, Any], acts: list[tuple[str, int]], seed: int
):
    made = network(name, **way)
    items, times = events(sum(count for _, count in acts), seed)
    nothing = [torch.empty(2, 0, part.record_bytes, dtype=torch.uint8) for part in parts(made)]
    state, records, begin, first, now = made.start(2), nothing, 0, 0, 0
    for act, count in acts:
        before, now = now, now + count
        if act == "forget":  # the user begins again
            begin = first = before
        if act == "rebuild":  # the state was lost, and is made of what can matter of the log
            first = before = max(begin, now - READABLE)
        if act != "extend":
            state, records = made.start(2), nothing
        with packing(made) as fresh:
            state = made.extend(state, items[:, before:now], times[:, before:now])
        records = [torch.cat([kept, *more], 1) for kept, more in zip(records, fresh, strict=True)]
        assert state.records.shape == (2, min(now - first, 4), made.record_bytes)
        history = Histories(items[:, begin:now], torch.full((2,), now - begin), times[:, begin:now])
        direct, read = whole(made, history)
        same = alike(made, records, read)
        if made._looks_up:  # what came before, as the first layer reads it
            known = made.first_layer()[items[:, first:now]]
            same &= alike(made, [known, *records[1:]], read)
        assert same.all() or way["attention"] == "collective"
        close(made.query(state)[same], direct[same])
        # From the records alone, as another process has them.
        close(made.query(state._replace(vectors=None)), made.query(state), way)


@every_network
@pytest.mark.parametrize(("kind", "users_share"), [("fp16", 0.15), ("int8", 0.01)])
@torch.no_grad()
def test_few_answers_change_with_the_order_of_sums(name: str, kind: str, users_share: float):
    """It moves what is rounded by a millionth, so that a few numbers go another way.

    The bounds are those that docs/collectivekv.md tells.
    """
    kept = {"user_dim": 4, "pool_size": 256, "user_type": kind}
    made = network(name, dim=32, window=10, layers=2, attention="collective", collective=kept)
    for seed in range(1, 6):
        items, times = events(20, seed, users=500)
        state = made.start(500)
        with packing(made) as fresh:
            for place in range(20):
                state = made.extend(state, items[:, place, None], times[:, place, None])
        direct, read = whole(made, Histories(items, torch.full((500,), 20), times))
        same = alike(made, [torch.cat(of_layer, 1) for of_layer in fresh], read)
        close(made.query(state)[same], direct[same])
        off = (made.query(state) - direct).abs().amax(1)
        assert (~same).float().mean() < users_share, seed
        assert (off > 1e-5).float().mean() < 0.025 and off.max() < 0.005, seed
        assert direct.abs().max() > 4


STEP_WAYS = [
    *WAYS,
    {"attention": "collective", "collective": {"user_dim": 4, "pool_size": 300}},
    {"attention": "collective", "collective": {"user_dim": 4, "pool_size": 0}},
    {"attention": "full", "use_times": False},
]


@every_network
@pytest.mark.parametrize("way", STEP_WAYS)
@torch.no_grad()
def test_a_step_in_numpy_is_the_network(name: str, way: dict[str, Any]):
    known = find(name).Config.model_fields
    made = network(name, **{key: value for key, value in way.items() if key in known})
    stepper, state = made.stepper(), made.start(1)
    items, times = events(12, 3)
    for place in range(12):
        now = (items[:1, place : place + 1], times[:1, place : place + 1])
        before = state.records[0].numpy()
        vector, record = stepper.extend(before, int(now[0]), int(now[1]))
        state = made.extend(state, *now)
        close(torch.from_numpy(vector), made.query(state)[0], way)
        assert record.shape == state.records[0, -1].shape
        # Its own record carries it on as the network's does.
        kept = np.concatenate([before, record[None]])[-made.window :]
        close(torch.from_numpy(stepper.query(kept)), made.query(state)[0], way)


@every_network
def test_what_is_made_from_the_weights_is_made_once_for_them(name: str):
    made = network(name)
    first = made.stepper()
    assert made.eval().stepper() is first
    made.train()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(1.5)
    vector, _ = made.eval().stepper().extend(np.empty((0, made.record_bytes), np.uint8), 3, 0)
    with torch.no_grad():
        state = made.extend(made.start(), torch.tensor([[3]]), torch.tensor([[0]]))
    close(torch.from_numpy(vector), made.query(state)[0])


@every_network
@every_way
@torch.no_grad()
def test_nothing_before_the_readable_events_matters(name: str, way: dict[str, Any]):
    made = network(name, **way)
    items, times = events(40, 5)
    whole = made.extend(made.start(2), items, times)
    last = made.extend(made.start(2), items[:, -READABLE:], times[:, -READABLE:])
    close(made.query(whole), made.query(last), way)
    more = (items[:, :1], times[:, -1:] + 10**7)
    close(made.query(made.extend(whole, *more)), made.query(made.extend(last, *more)), way)
    if way["attention"] == "collective":
        return  # choosing among few pool entries may swallow what one event changes
    less = made.extend(made.start(2), items[:, 1 - READABLE :], times[:, 1 - READABLE :])
    assert not torch.allclose(made.query(whole), made.query(less), atol=1e-4)


@every_network
@every_way
def test_users_advance_together_as_alone(name: str, way: dict[str, Any], ordinary: Split):
    train: dict[str, Any] = {"train": {"epochs": 1, "batch_tokens": 256}}
    model: Any = find(name)(dim=8, window=4, max_length=8, **way, **train)
    assert isinstance(model, IncrementalRecommender)
    model.fit(ordinary, RunContext(seed=0))
    histories = ordinary.test.histories
    rows = np.arange(min(12, len(histories)))
    full = histories.take(rows)
    # Some users are new, some have one new event, some many, some none.
    news = np.minimum([0, 1, 3, 0, 1, 40, 2, 1, 1, 0, 9, 1], full.lengths)
    known = full.lengths - news
    begun = model.advance([empty(model)] * 12, cut(full, np.zeros(12, np.int64), known))
    states = [records[-model.window :] for records in begun.records]
    new = cut(full, known, full.lengths)
    together = model.advance(states, new)
    for row in rows:
        one = new.take(np.array([row]))
        alone = model.advance([states[row]], one)
        close(together.vectors[row], alone.vectors[0])
        assert together.records[row].shape == alone.records[0].shape
        assert len(alone.records[0]) == min(news[row], model.readable)
    scores = together.vectors @ model.item_vectors().T
    for asked, direct in model.scores(full, exclude="none"):
        close(scores[torch.from_numpy(asked)], direct)


def test_many_new_users_are_read_in_parts(ordinary: Split, monkeypatch: pytest.MonkeyPatch):
    model: Any = find("sasrec")(dim=8, window=4, max_length=8, train={"epochs": 1})
    model.fit(ordinary, RunContext(seed=0))
    history = ordinary.test.histories.last(5)
    long = history.take(np.flatnonzero(history.lengths == 5)[:20])
    nothing = [empty(model)] * len(long)
    at_once, sizes = model.advance(nothing, long), []
    advance = model.network.advance

    def look(records: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(records))
        return advance(records, *rest)

    monkeypatch.setattr(model.network, "advance", look)
    monkeypatch.setattr(incremental, "TOKENS_WHEN_ASKED", 5 * 8)
    in_parts = model.advance(nothing, long)
    assert sizes == [8] * (len(long) // 8) + [len(long) % 8] * (len(long) % 8 > 0)
    assert len(sizes) > 1
    close(in_parts.vectors, at_once.vectors)
    for one, other in zip(in_parts.records, at_once.records, strict=True):
        np.testing.assert_array_equal(one, other)


@every_network
def test_a_user_without_events_has_no_vector(name: str, ordinary: Split):
    model: Any = find(name)(dim=8, window=4, train={"epochs": 1})
    model.fit(ordinary, RunContext())
    nobody = Sequences(np.empty(0, np.int32), np.zeros(2, np.int64), np.empty(0, np.int64))
    found = model.advance([empty(model)], nobody)
    assert found.records[0].shape == (0, model.record_bytes)
    assert not found.vectors.any()


def test_times_must_be_given_where_they_are_read(ordinary: Split):
    model: Any = find("hstu")(dim=8, window=4, train={"epochs": 1})
    model.fit(ordinary, RunContext())
    with pytest.raises(InputError, match="use_times"):
        model.advance([empty(model)], Sequences.from_lists([[1, 2]]))


def test_bytes_of_a_record():
    def size(name: str, **parameters: Any) -> int:
        return network(name, dim=128, layers=2, **parameters).record_bytes

    # Keys and values of two layers in float32; the item's number, two bytes, in whole words.
    assert size("sasrec") == 2 * 2 * 128 * 4 + 4
    assert size("hstu") == 2 * 2 * 128 * 4 + 8  # and four bytes of time
    small = {"attention": "collective", "collective": {"user_dim": 4, "pool_size": 256}}
    assert size("sasrec", **small) == (4 + 4 + 1 + 1) + 2  # the first layer is looked up
    assert size("hstu", **small) == (4 + 4 + 1 + 1) + 2 + 4


@every_network
@torch.no_grad()
def test_one_layer_looked_up_by_item_loses_nothing(name: str):
    """The records hold the item (and the time), and no key or value."""
    full, small = network(name, layers=1), network(name, layers=1, attention="collective")
    small.load_state_dict(full.state_dict())
    items, times = events(9, 3)
    given = (items, times) if full.reads_time else (items,)
    states = [made.extend(made.start(2), *given) for made in (full, small)]
    assert small.record_bytes == 2 + 4 * small.reads_time < full.record_bytes
    torch.testing.assert_close(small.query(states[1]), full.query(states[0]))


@every_network
def test_what_does_not_fit_is_said(name: str):
    with pytest.raises(InputError, match="multiple of heads"):
        find(name)(attention="collective", collective={"user_dim": 3})


def empty(model: IncrementalRecommender) -> np.ndarray:
    return np.empty((0, model.record_bytes), np.uint8)


def cut(rows: Sequences, first: np.ndarray, last: np.ndarray) -> Sequences:
    """Events ``first`` to ``last`` of every row."""
    place = np.arange(rows.events) - np.repeat(rows.offsets[:-1], rows.lengths)
    kept = (place >= np.repeat(first, rows.lengths)) & (place < np.repeat(last, rows.lengths))
    assert rows.times is not None
    return Sequences(rows.items[kept], offsets_of(last - first), rows.times[kept])
