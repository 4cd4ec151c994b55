"""LUMOS: its loss by hand, FedAvg's bytes, and nothing synthetic in any message."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.federated.core.base import LocalUsers, World
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.messages import PROTOCOL, Order, encode
from foretaste.federated.core.updates import zeros
from foretaste.federated.fedavg import TABLE, FedAvg
from foretaste.federated.lumos import LUMOS, LUMOSConfig, tri_view_loss
from foretaste.language.views.chat import ChatConfig, ChatViews
from foretaste.language.views.making import ViewBook
from foretaste.language.views.views import Request, View, Views
from foretaste.progress import Silent
from foretaste.recommenders.core.sequence import Histories
from foretaste.recommenders.gru4rec import GRU4Rec

from .rings import ITEMS, keys_of, method_of, nodes_of, ring, same, server_of, small_sasrec


class Bars(Silent):
    """Remembers what was told."""

    def __init__(self) -> None:
        self.totals: list[int] = []

    def task(self, description: str, total: int | None = None):
        assert description == "views" and total is not None
        self.totals.append(total)
        return super().task(description, total)


LOCAL = {"epochs": 2, "negatives": 4, "learning_rate": 0.01}
RANDOM = {"kind": "random", "more": 2, "other": 3}


class Fixed:
    """A maker whose views of a history are known: items 20, 21 follow; 22 takes the first place."""

    identity, lasting, batch = "fixed", False, 64

    def make(self, request: Request, progress=None) -> Views:
        rows = []
        for history in request.histories:
            like = history.copy()
            like[0] = 22
            rows.append(View(np.append(history, [20, 21]).astype(np.int32), like, np.array([23])))
        return Views(rows)


def lumos(*, model=None, maker=None, **config) -> LUMOS:
    method = method_of("lumos", model=model, **{"local": LOCAL, "views": RANDOM, **config})
    assert isinstance(method, LUMOS)
    if maker is not None:
        method._book = ViewBook(maker, method.world.catalog)
    return method


def update_of(method: FedAvg, histories: Sequences) -> dict[str, np.ndarray]:
    """What the users send, added up."""
    keys = keys_of(len(histories))
    found = method.train(method.start(), LocalUsers(keys, keys, histories, {}), 1, each=True)
    total = zeros({one.name: one.shape for one in method.up()})
    found.updates.add_to(total)
    return total


def test_the_loss_of_a_case_by_hand():
    """Cosines 0.9, 0.5, -0.2 at temperature 0.5: logits 1.8, 1.0, -0.4."""
    there = torch.tensor([True, True, True])
    cosines = torch.tensor([0.9, 0.5, -0.2])
    total = math.exp(1.8) + math.exp(1.0) + math.exp(-0.4)
    shared = -math.log(math.exp(1.8) / total) - math.log(math.exp(1.0) / total)
    assert float(tri_view_loss(cosines, there, 0.5)) == pytest.approx(shared, abs=1e-5)
    apart = -math.log(math.exp(1.8) / (math.exp(1.8) + math.exp(-0.4)))
    apart -= math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(-0.4)))
    found = float(tri_view_loss(cosines, there, 0.5, shared=False))
    assert found == pytest.approx(apart, abs=1e-5)


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), st.floats(0.05, 2))
def test_the_floor_is_two_log_two(cosines, temperature):
    there = torch.ones(3, dtype=torch.bool)
    assert float(tri_view_loss(torch.tensor(cosines), there, temperature)) >= 2 * math.log(2) - 1e-5
    assert float(tri_view_loss(torch.tensor(cosines), there, temperature, shared=False)) >= 0


def test_the_floor_is_reached():
    best = torch.tensor([1.0, 1.0, -1.0])
    there = torch.ones(3, dtype=torch.bool)
    assert float(tri_view_loss(best, there, 0.07)) == pytest.approx(2 * math.log(2), abs=1e-6)
    assert float(tri_view_loss(best, there, 0.07, shared=False)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_views_that_are_not_there_do_not_count(shared):
    cosines = torch.tensor([0.3, 0.9, -0.1], requires_grad=True)

    def loss(*there: bool) -> torch.Tensor:
        return tri_view_loss(cosines, torch.tensor(there), 0.5, shared=shared)

    assert float(loss(False, False, True).detach()) == 0
    assert float(loss(False, False, False).detach()) == 0
    one = math.log(1 + math.exp((-0.1 - 0.3) / 0.5))
    assert float(loss(True, False, True).detach()) == pytest.approx(one, abs=1e-5)
    (slope,) = torch.autograd.grad(loss(True, False, True), cosines)
    assert slope[1] == 0
    (slope,) = torch.autograd.grad(loss(False, False, False), cosines)
    assert not slope.any()


def test_the_whole_loss_of_a_user_by_hand():
    """The network on history and views, one by one, and the formula of the paper."""
    model = small_sasrec(dropout=0.0)
    plain = method_of(model=model, local=LOCAL)
    method = lumos(model=model, maker=Fixed(), contrast=0.3, temperature=0.1)
    histories = Sequences.from_lists([[3, 4, 5], [7, 8, 9, 10]])
    keys = keys_of(2)
    users = LocalUsers(keys, keys, histories, {})
    state = method.start()
    assert isinstance(plain, FedAvg)
    without = plain.train(state, users, 1, each=True).losses
    found = method.train(state, users, 1, each=True).losses
    network = method._fresh().eval().requires_grad_(False)

    def vector(items: list[int]) -> torch.Tensor:
        read = items[-6:]  # max_length
        histories = Histories(
            torch.tensor([read], dtype=torch.int32), torch.tensor([len(read)]), None
        )
        return F.normalize(network(histories)[0, -1], dim=0)

    for row, history in enumerate(histories):
        own = history.tolist()
        here = vector(own)
        views = [[*own, 20, 21], [22, *own[1:]], [23]]
        scores = [math.exp(float(here @ vector(view)) / 0.1) for view in views]
        contrast = -sum(math.log(score / sum(scores)) for score in scores[:2])
        expected = float(without[row]) + 0.3 * contrast
        assert float(found[row]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("view_items", ["fixed", "trained"])
@pytest.mark.parametrize("negatives", [4, 0])
def test_without_weight_it_is_fedavg(view_items, negatives):
    local = {**LOCAL, "negatives": negatives, "weight_decay": 0.01}
    histories = ring(12)
    plain = method_of(local=local)
    assert isinstance(plain, FedAvg)
    method = lumos(contrast=0.0, local=local, view_items=view_items)
    if view_items == "fixed":
        same(update_of(plain, histories), update_of(method, histories), 2e-5)
    else:  # decay reaches the rows that are held
        found = update_of(method, histories)
        same(
            {k: v for k, v in update_of(plain, histories).items() if k != TABLE},
            {k: v for k, v in found.items() if k != TABLE},
            2e-5,
        )


def test_the_contrast_changes_what_is_learnt():
    histories = ring(12)
    plain = method_of(local=LOCAL)
    assert isinstance(plain, FedAvg)
    without, found = update_of(plain, histories), update_of(lumos(contrast=0.5), histories)
    assert max(np.abs(without[name] - found[name]).max() for name in found) > 1e-3


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_rows_that_change_are_those_of_fedavg(decay):
    """No one who reads an update can tell which items only the views held."""
    local = {**LOCAL, "negatives": 2, "weight_decay": decay}
    for user in range(2):
        histories = ring(6, longest=5, seed=user).take(np.array([user]))
        plain = method_of(local=local)
        assert isinstance(plain, FedAvg)
        rows = [
            set(np.flatnonzero(np.abs(update_of(one, histories)[TABLE]).sum(1)).tolist())
            for one in (
                plain,
                lumos(local=local, maker=Fixed()),
                lumos(local=local, maker=Fixed(), view_items="trained"),
            )
        ]
        assert rows[0] == rows[1]
        assert {20, 21, 22, 23} <= rows[2]
        assert len(rows[0]) < ITEMS / 2


def test_bytes_are_those_of_fedavg():
    histories = ring(10)
    order = method_of().start()
    sizes = []
    for method in (method_of(local=LOCAL), lumos(maker=Fixed())):
        (node,) = nodes_of(method, histories, 1)
        reply = node.answer(Order("train", 1, PROTOCOL, 1.0, order))
        assert [(one.name, one.dtype, one.shape) for one in method.up()] == [
            (name, "float32", reply.arrays[name].shape) for name in [x.name for x in method.up()]
        ]
        sizes.append(len(encode(reply)))
        server = server_of(method, histories, nodes=10)
        done = server.step()
        sizes.append((done.up, done.down))  # type: ignore[arg-type]
    assert sizes[:2] == sizes[2:]


class Whole:
    """A scripted model that names the last items of the catalog whatever it is asked."""

    identity, batch = "whole", 8

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def answers(self, prompts):
        self.prompts += prompts
        return ["1. Secret view twentytwo\n2. Secret view twentythree" for _ in prompts]


def titled(items: int = ITEMS) -> Catalog:
    names = [f"Plain thing number {number}" for number in range(items - 2)]
    known = pl.DataFrame(
        {
            "item_id": [f"i{number:03d}" for number in range(items)],
            "title": [*names, "Secret view twentytwo", "Secret view twentythree"],
        }
    )
    return Catalog.from_items(known["item_id"], known)


def test_no_synthetic_item_is_in_any_message():
    """Neither titles nor ids nor numbers of views are in the bytes; rows of views do not move."""
    model = Whole()
    world = World(titled(), small_sasrec(), seed=3)
    local = {**LOCAL, "negatives": 1}
    method = LUMOS(LUMOSConfig.model_validate({"local": local, "contrast": 0.5}), world)
    config = ChatConfig(newest=4)
    method._book = ViewBook(ChatViews(config, model, world.catalog), world.catalog)
    histories = Sequences.from_lists([[1, 2, 3], [4, 5, 6]])
    sent = []
    for node in nodes_of(method, histories, 2):
        reply = node.answer(Order("train", 1, PROTOCOL, 1.0, method.start()))
        assert not reply.arrays[TABLE][22:].any()
        assert all(array.dtype.kind == "f" or not array.shape for array in reply.arrays.values())
        sent.append(encode(reply))
    assert len(model.prompts) == 6
    for content in sent:
        assert b"Secret" not in content
        assert b"i022" not in content
        assert b"Plain" not in content


@pytest.mark.parametrize("kind", ["random", "received", "augment"])
def test_many_users_on_a_node_equal_nodes_of_one(kind):
    histories, states = ring(6), []
    for nodes in (6, 1):
        method = lumos(views={"kind": kind, "other": 3}, rounds=1, clients=1.0, contrast=0.5)
        states.append(server_of(method, histories, nodes).run().state)
    # Adam makes whole steps of differences in rounding where a gradient is nearly none.
    same(states[0], states[1], 1e-4)


def test_gru4rec_learns_with_views():
    histories = ring(6)
    model = GRU4Rec(dim=8, hidden=12, max_length=6, dropout=0.2)
    states = []
    for nodes in (6, 1):
        method = lumos(model=model, rounds=1, clients=1.0, contrast=0.5)
        states.append(server_of(method, histories, nodes).run().state)
    same(states[0], states[1], 1e-4)


def test_a_history_is_asked_for_once_over_all_rounds(tmp_path):
    model, bars = Whole(), Bars()
    model.batch = 1  # what takes one batch has no bar
    world = World(titled(), small_sasrec(), seed=3, folder=tmp_path, progress=bars)
    config = LUMOSConfig.model_validate({"local": LOCAL, "rounds": 3, "clients": 1.0})
    for _ in range(2):  # the second time from the disk
        method = LUMOS(config, world)
        book = ViewBook(ChatViews(ChatConfig(), model, world.catalog), world.catalog)
        from foretaste.language.views.store import ViewStore

        book.store = ViewStore(tmp_path / "views.sqlite")
        method._book = book
        server_of(method, ring(5), nodes=2).run()
    assert len(model.prompts) == 3 * len({tuple(row) for row in ring(5)})
    # A bar for each node's first round, and none for what is known.
    assert sum(bars.totals) == len({tuple(row) for row in ring(5)}) and len(bars.totals) <= 2


def test_titles_are_needed_for_views_of_titles():
    with pytest.raises(InputError, match="views.kind"):
        lumos(views={"kind": "titles"})


def test_views_of_titles_by_default():
    method = LUMOS(LUMOSConfig(), World(titled(), small_sasrec(), seed=3))
    assert method.config.views.kind == "titles"
    assert np.isfinite(update_of(method, ring(3))[TABLE]).all()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"uses": ["counterfactual"]}, "nothing to draw near"),
        ({"uses": ["future"], "denominators": "separate"}, "loss of 0"),
        ({"temperature": 0}, "temperature"),
        ({"views": {"kind": "psychic"}}, "psychic"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_told(config, told):
    with pytest.raises(InputError, match=told):
        lumos(**config)


def test_times_are_refused():
    from foretaste.recommenders.hstu import HSTU

    model = HSTU(dim=8, max_length=6, window=4)
    with pytest.raises(InputError, match=r"use_times = false"):
        lumos(model=model)


def test_without_the_counterfactual_the_third_view_is_not_read():
    histories = ring(6)
    uses = ["future", "rephrasing"]
    with_third = update_of(lumos(maker=Fixed(), contrast=0.5), histories)
    without = update_of(lumos(maker=Fixed(), contrast=0.5, uses=uses), histories)
    assert np.abs(with_third["norm.weight"] - without["norm.weight"]).max() > 1e-5

    class Other(Fixed):
        def make(self, request: Request, progress=None) -> Views:
            rows = super().make(request).rows
            return Views([row._replace(counterfactual=np.array([0, 1])) for row in rows])

    again = update_of(lumos(maker=Other(), contrast=0.5, uses=uses), histories)
    same(without, again, 1e-6)


def test_users_without_any_view_train_as_in_fedavg():
    class Nothing(Fixed):
        def make(self, request: Request, progress=None) -> Views:
            empty = np.empty(0, np.int32)
            return Views([View(empty, empty, empty)] * len(request.histories))

    histories = ring(6)
    plain = method_of(local=LOCAL)
    assert isinstance(plain, FedAvg)
    same(update_of(plain, histories), update_of(lumos(maker=Nothing()), histories), 2e-5)


def test_it_is_found_by_name():
    assert issubclass(LUMOSConfig, FederatedConfig)
    assert method_of("lumos", views=RANDOM).name == "lumos"
