"""Rounds of a server that sees sums of groups only: equal to plain ones, whoever drops out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.federated.core.fleet import Delivery, LocalFleet
from foretaste.federated.core.messages import Kind
from foretaste.federated.core.secure import step_of
from foretaste.federated.core.server import Server
from foretaste.federated.core.travelling import KEY_SHARES, SELF_SHARES, SESSION, USERS
from foretaste.recommenders.als import ALS

from . import tallying
from .rings import method_of, nodes_of, ring, same, server_of
from .sealing import LOCAL, Failing, secured

assert tallying  # its class is found by name once it was imported

NETWORK = {"local": {"epochs": 2, "negatives": 6, "optimizer": "sgd", "learning_rate": 0.1}}
LUMOS = {**NETWORK, "views": {"kind": "random", "more": 2, "other": 3}}
CODES = {"semantic": "random", "collaborative_size": 4, "refresh": 1, "sketch": 5}
PLAIN = {"upload": "float32"}  # steps of a node's rows cannot be added up
METHODS = {
    "fedavg": NETWORK,
    "lumos": LUMOS,
    "rqfedrec": CODES | PLAIN,
    "pfedrec": {},
    "fedmf": {},
    "fedrap": {},
}


def made(name: str, **config):
    model = None if METHODS.get(name, NETWORK) in (NETWORK, LUMOS) else ALS(factors=4)
    return method_of(name, model=model, **METHODS.get(name, {}), **config)


def tallies(nodes: int, users: int, fails=lambda node, kind: False, **config) -> Server:
    """A federation that counts items: what it comes to is known."""
    method = method_of("tallying", **{"retries": 0, **secured(nodes), **config})
    return Server(method, Failing(nodes_of(method, ring(users), nodes), fails), clients=users)


def tally_of(users: int, nodes: int, without: tuple[int, ...] = ()) -> np.ndarray:
    """Counts of items over the users of all nodes but some."""
    rows = np.array([row for row in range(users) if row % nodes not in without])
    return np.bincount(ring(users).take(rows).items, minlength=24)


def gone_at(kind: Kind, *numbers: int):
    """Nodes of these numbers do not answer orders of a kind."""
    names = {f"node {number:03d}" for number in numbers}
    return lambda node, asked: asked == kind and node in names


@pytest.mark.parametrize("name", METHODS)
def test_a_federation_comes_to_the_same(name):
    """To the resolution: half a step for each of four nodes, in every sum of two rounds."""
    histories, states, curves = ring(9), [], []
    for how in ({"nodes": 4, "clients": 1.0}, secured(4, range=16.0)):
        method = made(name, rounds=2, evaluate_every=10, **how)
        now = server_of(method, histories, 4).run()
        states.append(now.state)
        curves.append(now.curve)
    same(states[0], states[1], 3e-6)
    assert step_of(4, 16.0) == pytest.approx(4 * 16 / 2**31)
    for plain, hidden in zip(*curves, strict=True):
        assert (plain.users, plain.nodes) == (hidden.users, hidden.nodes) == (9, 4)
        assert plain.loss == pytest.approx(hidden.loss, abs=1e-5)
        assert hidden.up > plain.up + 2 * 4 * 16  # shares, besides
        assert hidden.down > plain.down + 4 * (2 * 32 + 60)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_sums_are_those_of_all_users(tmp_path, where):
    method = method_of("tallying", **secured(4))
    server = server_of(method, ring(10), 4, tmp_path if where == "disk" else None)
    for number in (1, 2, 3):
        assert server.step().users == 10
        wanted = number * tally_of(10, 4)
        np.testing.assert_allclose(server.now.state["tally"], wanted, atol=1e-6)
    assert not list(tmp_path.glob("*/session.*"))


@pytest.mark.parametrize("kind", ["train.keys", "train.shares", "train", "train.unmask"])
def test_nodes_may_drop_out_at_every_exchange(kind):
    """Of six nodes four must be there; who sent its sums counts, though it goes then."""
    server = tallies(6, 12, gone_at(kind, 1, 4))
    done = server.step()
    without = () if kind == "train.unmask" else (1, 4)
    assert done.users == 12 - 2 * len(without)
    assert done.nodes == 6 - len(without)
    assert sorted(done.problems) == [f"node {one:03d}: gone at {kind}" for one in without]
    np.testing.assert_allclose(server.now.state["tally"], tally_of(12, 6, without), atol=1e-6)


@pytest.mark.parametrize("kind", ["train.shares", "train", "train.unmask"])
def test_with_too_many_gone_the_round_is_asked_again_and_then_told(kind):
    server = tallies(6, 12, gone_at(kind, 0, 2, 4), retries=1)
    with pytest.raises(InputError, match=r"0 clients of 0 nodes.*3 of 6 nodes .*4 are needed"):
        server.step()
    asked = Counter(server.fleet.asked)  # type: ignore[attr-defined]
    assert asked["node 001", "train.keys"] == 2
    assert not server.now.state["tally"].any()


def test_with_two_nodes_left_nothing_is_asked_of_them():
    server = tallies(6, 12, gone_at("train.keys", 0, 1, 2, 3), retries=0)
    with pytest.raises(InputError, match="2 nodes gave keys, 3 are needed"):
        server.step()
    assert not any(kind != "train.keys" for _, kind in server.fleet.asked)  # type: ignore[attr-defined]


def test_a_node_whose_sum_was_opened_is_not_asked_again_in_its_round():
    """Or the difference of two sums would tell what one node sent."""
    first = {"on": True}

    def fails(node: str, kind: Kind) -> bool:
        return first["on"] and kind == "train" and node == "node 003"

    server = tallies(8, 16, fails, retries=2, min_clients=16)
    with pytest.raises(InputError, match="14 clients of 7 nodes answered, 16 are needed"):
        server.step()
    asked = Counter(server.fleet.asked)  # type: ignore[attr-defined]
    assert asked["node 000", "train.keys"] == asked["node 003", "train.keys"] == 1


def test_a_lost_group_is_asked_again_with_new_keys():
    """Twelve nodes in groups of six; one group loses too many, and comes back whole.

    The other loses its first node, and is opened without it.
    """
    lost = {"node 000", "node 001", "node 003", "node 005"}
    sessions: list[bytes] = []

    class Once(Failing):
        def ask(self, orders, wait):
            sessions.extend(one.arrays[SESSION].tobytes() for one in orders.values())
            yield from super().ask(orders, wait)
            if next(iter(orders.values())).kind == "train":
                lost.clear()

    method = method_of("tallying", **secured(12, group=6), retries=1, min_clients=24)
    fleet = Once(
        nodes_of(method, ring(24), 12), lambda node, kind: kind == "train" and node in lost
    )
    server = Server(method, fleet, clients=24)
    done = server.step()
    assert (done.users, done.nodes) == (24, 12)
    assert len(set(sessions)) == 2
    asked = Counter(fleet.asked)
    assert asked["node 001", "train"] == asked["node 007", "train"] == 2
    assert asked["node 000", "train"] == 2
    assert asked["node 002", "train"] == 1
    assert sum(done.problems.values()) == 7
    np.testing.assert_allclose(server.now.state["tally"], tally_of(24, 12), atol=1e-6)


def test_groups_are_no_larger_than_asked_and_never_of_two():
    for nodes in range(3, 40):
        count = -(-nodes // 5)
        sizes = [len(range(first, nodes, count)) for first in range(count)]
        assert 3 <= min(sizes) <= max(sizes) <= 5
    server = tallies(11, 11, secure={"on": True, "group": 5})
    assert server.step().nodes == 11
    assert server.secure is not None and server.secure.largest == 4


class Tampering(LocalFleet):
    """Changes what some nodes answer."""

    def __init__(self, nodes, change) -> None:
        super().__init__(nodes)
        self.change = change

    def ask(self, orders, wait):
        for one in super().ask(orders, wait):
            yield self.change(one) if one.reply else one


def changed(one: Delivery, **arrays) -> Delivery:
    assert one.reply is not None
    return one._replace(reply=one.reply._replace(arrays={**one.reply.arrays, **arrays}))


def tampered(change, **config) -> Server:
    method = method_of("tallying", **secured(4), retries=0, **config)
    return Server(method, Tampering(nodes_of(method, ring(8), 4), change), clients=8)


def test_a_reply_of_an_old_session_is_left_out():
    def old(one: Delivery) -> Delivery:
        late = one.node == "node 002" and one.reply and one.reply.kind == "train"
        return changed(one, **{SESSION: np.zeros(16, np.uint8)}) if late else one

    done = tampered(old).step()
    assert done.problems == {"node 002, round 1: a reply of another session came late.": 1}
    assert done.users == 6


def test_shares_that_open_nothing_are_told():
    def wrong(one: Delivery) -> Delivery:
        assert one.reply is not None
        if one.reply.kind != "train.unmask" or one.node != "node 001":
            return one
        return changed(one, **{SELF_SHARES: one.reply.arrays[SELF_SHARES] + np.uint8(1)})

    with pytest.raises(InputError, match="masks were left on it"):
        tampered(wrong).step()

    def gone(one: Delivery) -> Delivery:
        assert one.reply is not None
        if one.reply.kind == "train" and one.node == "node 003":
            return one._replace(reply=None, problem="gone")
        if one.reply.kind == "train.unmask":
            return changed(one, **{KEY_SHARES: one.reply.arrays[KEY_SHARES] + np.uint8(1)})
        return one

    with pytest.raises(InputError, match="node 003, which dropped out, do not give the key"):
        tampered(gone).step()


def test_a_value_out_of_range_is_told_with_its_name():
    with pytest.raises(
        InputError, match=r'"tally" holds [23], more than federated.secure.range = 1'
    ):
        tallies(4, 16, secure={"on": True, "range": 1.0}).step()


def test_a_killed_server_goes_on(tmp_path):
    config = {**secured(3), "rounds": 4, "evaluate_every": 2, "local": LOCAL}
    whole = server_of(method_of(**config), ring(9), 3, tmp_path / "whole").run()
    folder = tmp_path / "cut"
    first = server_of(method_of(**config), ring(9), 3, folder)
    first.step()
    nodes = first.fleet

    class Killed(Exception):
        pass

    def fails(node: str, kind: Kind) -> bool:
        if kind == "train.unmask":
            raise Killed
        return False

    first.asking.fleet = Failing(nodes._nodes.values(), fails)  # type: ignore[attr-defined]
    with pytest.raises(Killed):
        first.step()
    assert len(list(folder.glob("*/session.safetensors"))) == 3
    again = server_of(method_of(**config), ring(9), 3, folder)
    assert again.now.next_round == 2
    ended = again.run()
    for name, array in whole.state.items():  # sums of whole numbers are the same bits
        np.testing.assert_array_equal(array, ended.state[name])
    assert not list(folder.glob("*/session.safetensors"))


def test_what_is_kept_still_travels_only_when_it_has_changed(tmp_path):
    server = server_of(method_of("tallying", **secured(3), rounds=4), ring(6), 3, tmp_path)
    sizes = [server.step() for _ in range(4)]
    codes = 24 * 2
    assert sizes[0].down - sizes[1].down == codes
    assert sizes[2].down - sizes[3].down == codes
    assert sizes[0].wire_down - sizes[1].wire_down >= 3 * codes


def test_bytes_are_those_of_all_exchanges_of_a_node_of_one_user():
    server = server_of(method_of(**secured(0), local=LOCAL), ring(6), 6)
    done = server.step()
    assert done.wire_up == pytest.approx(6 * done.up)
    assert done.wire_down == pytest.approx(6 * done.down, rel=0.01)
    server = server_of(method_of(**secured(3), local=LOCAL), ring(6), 3)
    fewer = server.step()
    assert fewer.up < done.up  # smaller groups share less


def test_noise_of_the_server_and_clipping_go_with_it():
    privacy = {"clip": 0.5, "noise": 0.5}
    states = []
    for how in ({"nodes": 3, "clients": 1.0}, secured(3)):
        server = server_of(method_of(local=LOCAL, privacy=privacy, **how), ring(6), 3)
        server.secret = 5
        server.step()
        states.append(server.now.state)
        assert server.now.curve[0].loss is None
    same(states[0], states[1], 1e-5)


def test_a_sample_of_nobody_leaves_the_state():
    server = tallies(3, 6, clients=1e-9)
    before = server.now.state
    assert server.step().users == 0
    assert server.now.state is before


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"robust": {"rule": "median"}}, "looks at the update of every node"),
        ({"upload": "int8"}, "upload = int8"),
        ({"nodes": 2}, "nodes = 2 is too few"),
        ({"secure": {"on": True, "threshold": 0.5}}, "threshold"),
        ({"secure": {"on": True, "group": 4}}, "group"),
    ],
)
def test_what_does_not_go_together_is_told(config, said):
    with pytest.raises(InputError, match=said):
        method_of(**{**secured(4), **config})
    assert method_of(nodes=2).config.secure.on is False


def test_half_and_one_more_and_three_are_always_needed():
    secure = method_of(**secured(3)).config.secure
    assert [secure.needed(nodes) for nodes in (3, 4, 5, 6, 9, 32)] == [3, 3, 3, 4, 6, 21]
    least = method_of(**secured(3, threshold=0.51)).config.secure
    assert [least.needed(nodes) for nodes in (4, 5, 6, 7)] == [3, 3, 4, 4]


def test_count_of_users_is_exact():
    server = server_of(method_of("tallying", **secured(5)), ring(23), 5)
    (sum_,) = server.secure.collect(1, list(server.fleet.nodes()), server.now.state).sums.values()  # type: ignore[union-attr]
    assert sum_.arrays[USERS].dtype == np.int64
    assert int(sum_.arrays[USERS]) == 23
