"""What stays with users, and what is sent only when it has changed."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.federated.core.node import USERS, Node, NodeUsers
from foretaste.federated.core.personal import PersonalStore

from . import tallying
from .rings import keys_of, method_of, nodes_of, ring, server_of

assert tallying  # its class is found by name once it was imported


@pytest.mark.parametrize("nodes", [1, 4, 10])
def test_sums_are_those_of_all_users(nodes):
    histories = ring(10)
    server = server_of(method_of("tallying", clients=1.0), histories, nodes)
    server.step()
    np.testing.assert_array_equal(
        server.now.state["tally"], np.bincount(histories.items, minlength=24)
    )


@pytest.mark.parametrize("kept_where", ["disk", "memory"])
def test_personal_arrays_are_kept_between_rounds(tmp_path, kept_where):
    method = method_of("tallying", clients=0.5, rounds=5)
    nodes = nodes_of(method, ring(20), 2, tmp_path if kept_where == "disk" else None)
    from foretaste.federated.core.fleet import LocalFleet
    from foretaste.federated.core.server import Server

    server = Server(method, LocalFleet(nodes), clients=20)
    took_part = np.zeros(20, np.int64)
    for number in range(1, 6):
        server.step()
        for place, node in enumerate(nodes):
            order = _order(number)
            took_part[place::2][node._taking_part(order)] += 1
    assert took_part.sum() == sum(one.users for one in server.now.curve)
    assert len(set(took_part)) > 2
    if kept_where == "disk":  # a new process knows them too
        nodes = nodes_of(method, ring(20), 2, tmp_path)
    for place, node in enumerate(nodes):
        arrays, known = node.store.before(6)
        np.testing.assert_array_equal(arrays["rounds"], took_part[place::2])
        np.testing.assert_array_equal(known, took_part[place::2] > 0)


def test_a_round_that_is_asked_again_starts_from_the_same_personal_arrays(tmp_path):
    method = method_of("tallying", clients=1.0)
    (node,) = nodes_of(method, ring(6), 1, tmp_path)
    for number in (1, 2, 2, 2):
        node.answer(_order(number, method))
    np.testing.assert_array_equal(node.store.before(3)[0]["rounds"], np.full(6, 2))
    assert len(list(tmp_path.glob("*/personal-*.safetensors"))) == 2


def test_a_federation_begun_anew_in_a_folder_remembers_nothing_of_the_last(tmp_path):
    method = method_of("tallying", clients=1.0)
    (node,) = nodes_of(method, ring(6), 1, tmp_path)
    for number in (1, 2, 3):
        node.answer(_order(number, method))
    (anew,) = nodes_of(method, ring(6), 1, tmp_path)
    anew.answer(_order(1, method))
    np.testing.assert_array_equal(anew.store.before(4)[0]["rounds"], np.full(6, 1))


def test_a_node_that_has_lost_and_won_users_keeps_the_others(tmp_path):
    declared = method_of("tallying").personal()
    old = PersonalStore(declared, keys_of(4), tmp_path)
    old.after(1, {"rounds": np.array([5, 6, 7, 8])}, np.array([True, True, False, True]))
    new = PersonalStore(declared, keys_of(6)[[5, 3, 0]], tmp_path)
    arrays, known = new.before(2)
    np.testing.assert_array_equal(arrays["rounds"], [0, 8, 5])
    np.testing.assert_array_equal(known, [False, True, True])


def test_what_is_kept_travels_only_when_it_has_changed(tmp_path):
    method = method_of("tallying", clients=1.0, rounds=4)
    server = server_of(method, ring(6), 2, tmp_path)
    sizes = [server.step() for _ in range(4)]
    codes = 24 * 2
    # New codes come down in rounds 1 and 3, to every user.
    assert sizes[0].down - sizes[1].down == codes
    assert sizes[2].down - sizes[3].down == codes
    assert sizes[0].wire_down - sizes[1].wire_down >= 2 * codes


def test_a_user_who_comes_later_is_counted_as_getting_what_is_kept():
    method = method_of("tallying", clients=0.5, rounds=2)
    server = server_of(method, ring(40), 1)
    first, second = server.step(), server.step()
    (node,) = nodes_of(method, ring(40), 1)
    before = set(node._taking_part(_order(1)).tolist())
    new = [row for row in node._taking_part(_order(2)).tolist() if row not in before]
    assert 0 < len(new) < second.users
    assert second.down == pytest.approx(first.down - 48 + 48 * len(new) / second.users)


def test_a_node_that_has_won_and_lost_users_knows_who_had_what_is_kept(tmp_path):
    """The codes are not sent again, so only users who are new to them get them."""
    method = method_of("tallying", clients=1.0)
    histories, keys = ring(5), keys_of(5)
    new, found = "count/new/codes", []
    for round, rows in ((1, [0, 1, 2]), (2, [4, 3, 2, 0])):
        users = NodeUsers(keys[rows], histories.take(np.array(rows)))
        node = Node(method, users, "node", tmp_path)
        order = _order(round, method)
        if round > 1:
            del order.arrays["codes"]
        found.append(int(node.answer(order).arrays[new]))
    assert found == [3, 2]


def test_a_device_that_lost_what_it_kept_gets_it_again():
    method = method_of("tallying", clients=1.0, rounds=2)
    server = server_of(method, ring(6), 2)
    server.step()
    node = server.fleet._nodes["node 001"]  # type: ignore[attr-defined]
    node.kept._memory = {}
    done = server.step()
    assert done.users == 3  # a round that has enough goes on without it
    assert any("Send it again" in problem for problem in done.problems)
    assert server.held.keys() == {"node 000"}  # and it will be sent the codes next time


def test_a_round_with_too_few_asks_again_at_once():
    method = method_of("tallying", clients=1.0, rounds=2, min_clients=6)
    server = server_of(method, ring(6), 2)
    server.step()
    server.fleet._nodes["node 001"].kept._memory = {}  # type: ignore[attr-defined]
    done = server.step()
    assert done.users == 6
    np.testing.assert_array_equal(
        server.now.state["tally"], 2 * np.bincount(ring(6).items, minlength=24)
    )


def test_a_damaged_personal_file_is_told(tmp_path):
    method = method_of("tallying", clients=1.0)
    (node,) = nodes_of(method, ring(6), 1, tmp_path)
    node.answer(_order(1, method))
    (path,) = tmp_path.glob("*/personal-*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="damaged"):
        node.answer(_order(2, method))


@pytest.mark.parametrize("rows", [[], [[3]], [[], [4]]])
def test_a_node_without_enough_data_says_so_and_sends_zeros(rows):
    method = method_of("tallying", clients=1.0)
    (node,) = nodes_of(method, Sequences.from_lists(rows), 1)
    reply = node.answer(_order(1, method))
    assert int(reply.arrays[USERS]) == 0
    assert not reply.arrays["tally"].any()


def _order(number: int, method=None):
    from foretaste.federated.core.messages import PROTOCOL, Order

    method = method or method_of("tallying", clients=0.5)
    return Order("train", number, PROTOCOL, method.config.clients, method.start())
