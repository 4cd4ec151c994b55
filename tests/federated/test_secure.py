"""Masks, keys and shares by hand; what leaves a node, and what a node refuses to answer."""

from __future__ import annotations

import stat
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.errors import InputError, MissingExtraError
from foretaste.federated.core import secure
from foretaste.federated.core.boundary import Declared
from foretaste.federated.core.messages import PROTOCOL, Order
from foretaste.federated.core.node import Node
from foretaste.federated.core.sessions import FILE
from foretaste.federated.core.travelling import (
    DELIVERED,
    KEY_SHARES,
    MASK_KEYS,
    SECURE,
    SELF_SHARES,
    SESSION,
    SHARE_KEYS,
    coming_down,
    going_up,
    masked,
    sums_of,
)
from foretaste.federated.explaining import explain

from . import tallying
from .rings import method_of, nodes_of, ring
from .sealing import LOCAL, Group, secured

assert tallying  # its class is found by name once it was imported

SUM = Declared("w", "float32", (2, 3), "", "")
COUNT, LOSS = Declared("n", "int64", (), "", ""), Declared("x", "float64", (), "", "")


def nodes_that_tally(nodes: int, folder=None, **config) -> list[Node]:
    method = method_of("tallying", **{**secured(nodes), **config})
    return nodes_of(method, ring(nodes), nodes, folder)


# The arithmetic.


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 40), st.floats(0.01, 1e5), st.integers(0, 2**32))
def test_sums_of_words_are_sums_to_the_resolution(nodes, largest, seed):
    rng = np.random.default_rng(seed)
    declared, words, plain = (SUM, COUNT, LOSS), [], []
    for _ in range(nodes):
        own = {
            "w": (largest * rng.choice([-1, 1], (2, 3))).astype(np.float32)
            if seed % 2
            else rng.uniform(-largest, largest, (2, 3)).astype(np.float32),
            "n": np.array(rng.integers(10**6), np.int64),
            "x": np.array(rng.normal() * 100, np.float64),
        }
        limit = float(np.nextafter(np.float32(largest), np.float32(np.inf)))
        words.append(secure.to_words(own, declared, nodes, limit, "here"))
        plain.append(own)
    total = {
        name: np.sum([one[name] for one in words], 0, words[0][name].dtype) for name in words[0]
    }
    for one in masked(declared):
        assert (total[one.name].dtype, total[one.name].shape) == (np.dtype(one.dtype), one.shape)
    found = secure.from_words(total, declared, nodes, limit, "here")
    assert found["n"] == sum(int(one["n"]) for one in plain)
    assert float(found["x"]) == pytest.approx(
        sum(float(one["x"]) for one in plain), abs=nodes * 1e-6
    )
    exact = np.sum([one["w"].astype(np.float64) for one in plain], 0)
    rounding = nodes / 2 * secure.step_of(nodes, limit) + nodes * limit * 1e-7  # and float32
    np.testing.assert_allclose(found["w"], exact, rtol=0, atol=rounding)


def test_the_resolution_is_what_is_written():
    assert secure.step_of(32, 8.0) == pytest.approx(32 * 8 / 2**31, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"w": np.full((2, 3), -9, np.float32)}, r'"w" holds 9, .*federated.secure.range = 8'),
        ({"n": np.array(2**33, np.int64)}, r'"n" is 8.58993e\+09; masked counts'),
    ],
)
def test_what_is_out_of_range_is_told(values, said):
    plain = {"w": np.zeros((2, 3), np.float32), "n": np.array(1), "x": np.array(0.5)} | values
    with pytest.raises(InputError, match=said):
        secure.to_words(plain, (SUM, COUNT, LOSS), 4, 8.0, "node 3, round 2")


def test_masks_come_off_and_look_like_nothing():
    words = {"b": np.arange(6, dtype=np.uint32), "a": np.zeros(40_000, np.uint64)}
    before = {name: one.copy() for name, one in words.items()}
    secure.mask(words, bytes(32), 1)
    bits = np.unpackbits(words["a"].view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.002  # four standard deviations of 2.56 million coins
    other = {name: one.copy() for name, one in before.items()}
    secure.mask(other, bytes(31) + b"\1", 1)
    assert not np.array_equal(other["a"], words["a"])
    secure.mask(words, bytes(32), -1)
    for name, one in before.items():
        np.testing.assert_array_equal(words[name], one)


def test_a_mask_is_the_key_stream_of_chacha20():
    """The key stream of RFC 8439, A.1, test vector 1: a key, a nonce and a counter of zero."""
    words = {"w": np.zeros(4, np.uint32)}
    secure.mask(words, bytes(32), 1)
    assert words["w"].astype("<u4").tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_three_nodes_agree_and_their_masks_cancel():
    session = b"s" * 16
    seeds = [bytes([number]) * 16 for number in range(3)]
    private = [secure.mask_key(seed, session) for seed in seeds]
    public = [secure.public_of(key) for key in private]
    assert len({secure.mask_key(seeds[0], other) for other in (session, b"t" * 16)}) == 2
    total = np.zeros(5, np.uint32)
    for one in range(3):
        words = {"w": np.full(5, one + 1, np.uint32)}
        for other in range(3):
            if other != one:
                key = secure.pair_mask(private[one], public[other], session)
                assert key == secure.pair_mask(private[other], public[one], session)
                secure.mask(words, key, 1 if one < other else -1)
        assert not np.array_equal(words["w"], np.full(5, one + 1))
        total += words["w"]
    np.testing.assert_array_equal(total, np.full(5, 6))


def test_shares_give_the_secret_back_and_fewer_do_not():
    secret = bytes(range(16))
    shares = secure.split_secret(secret, 3, 5)
    assert [len(one) for one in shares] == [16] * 5
    for chosen in ((0, 1, 2), (4, 2, 0), (0, 1, 2, 3, 4)):
        assert secure.joined_secret({place: shares[place] for place in chosen}, 3) == secret
    assert secure.joined_secret({place: shares[place] for place in (0, 1)}, 2) != secret


def test_a_key_that_is_none_is_told():
    with pytest.raises(InputError, match="no public key"):
        secure.agreed(bytes([1]) * 32, bytes(32))


def test_without_the_ciphers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    (node, *_) = nodes_that_tally(3)
    with pytest.raises(MissingExtraError, match=r"foretaste\[federated\]"):
        Group([node]).give_keys()


# A session.


def test_a_session_of_three_by_hand():
    """What the server does, step by step, with all there and no code of its own."""
    nodes = nodes_that_tally(3)
    group = Group(nodes).begin()
    sent = [group.train(place) for place in range(3)]
    given = [group.unmask(place, [True] * 3) for place in range(3)]
    session = group.session.tobytes()
    names = [one.name for one in sums_of(nodes[0].method)]
    total = {name: sent[0][name] + sent[1][name] + sent[2][name] for name in names}
    for place in range(3):
        shares = {holder: one[SELF_SHARES][place].tobytes() for holder, one in enumerate(given)}
        seed = secure.joined_secret(shares, 3)
        secure.mask(total, secure.self_mask(seed, session), -1)
        assert not given[place][KEY_SHARES].any()
    found = secure.from_words(total, sums_of(nodes[0].method), 3, 8.0, "here")
    np.testing.assert_allclose(found["tally"], np.bincount(ring(3).items, minlength=24), atol=1e-6)
    assert int(found["count/users"]) == 3


def test_what_leaves_a_node_is_not_its_sum():
    """And of two sessions of one update nothing is the same."""
    method = method_of(**secured(3), local=LOCAL)
    nodes = nodes_of(method, ring(3), 3)
    plain = nodes_of(method_of(local=LOCAL, nodes=3, clients=1.0), ring(3), 3)[0]
    order = Order("train", 1, PROTOCOL, 1.0, method.start())
    update = plain.answer(order).arrays
    sent = [Group(nodes, session).begin().train(0) for session in (1, 2)]
    names = [one.name for one in method.up()]
    own, first, second = (
        np.concatenate([one[name].ravel().astype(np.float64) for name in names])
        for one in (update, *sent)
    )
    bound = 5 / np.sqrt(len(own))
    assert len(own) > 500
    assert abs(np.corrcoef(own, first)[0, 1]) < bound
    assert abs(np.corrcoef(own, second - first)[0, 1]) < bound
    assert (first == second).mean() < 0.01
    assert sent[0]["count/users"] != sent[1]["count/users"]
    assert int(sent[0]["count/users"][0]) > 2**32


def test_a_dropped_node_is_unmasked_through_its_key_shares():
    nodes = nodes_that_tally(4)
    group = Group(nodes).begin()
    for place in (0, 1, 3):
        group.train(place)
    given = group.unmask(0, [True, True, False, True])
    np.testing.assert_array_equal(given[SELF_SHARES].any(1), [True, True, False, True])
    np.testing.assert_array_equal(given[KEY_SHARES].any(1), [False, False, True, False])


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_an_answer_is_given_once_and_in_order(tmp_path, where):
    nodes = nodes_that_tally(3, tmp_path if where == "disk" else None)
    group = Group(nodes)
    group.give_keys()
    with pytest.raises(InputError, match="train after train.keys: a session gives every answer"):
        group.train(0)
    group.give_shares()
    with pytest.raises(InputError, match="train.shares after train.shares"):
        nodes[0].answer(group.shares_order(0))
    with pytest.raises(InputError, match="train.unmask after train.shares"):
        group.unmask(0, [True] * 3)
    group.train(0)
    with pytest.raises(InputError, match="train after train"):
        group.train(0)
    group.unmask(0, [True] * 3)
    with pytest.raises(InputError, match=r"session 01010101 is not known here.*it has ended"):
        group.unmask(0, [True] * 3)


def test_both_shares_of_a_node_are_never_given():
    """One order cannot ask for both, and there is no second."""
    group = Group(nodes_that_tally(4)).begin()
    group.train(0)
    delivered = np.array([True, True, True, False])
    twice = {DELIVERED: delivered, SECURE + "dropped": delivered}
    with pytest.raises(InputError, match='"secure/dropped" is not on the list'):
        group.nodes[0].answer(group.order("train.unmask", twice))
    given = group.unmask(0, [True, True, True, False])
    assert not (given[SELF_SHARES].any(1) & given[KEY_SHARES].any(1)).any()
    with pytest.raises(InputError, match="not known here"):
        group.unmask(0, [True, True, False, True])


@pytest.mark.parametrize(
    ("delivered", "said"),
    [
        ([True, True, False, False, False, False], "2 of 6 nodes of the group are left, 4 are"),
        ([False, True, True, True, True, True], "leaves this node out"),
        ([True, True, True, True, True, False], "names nodes that had left it"),
    ],
)
def test_an_order_that_would_open_too_much_is_refused(delivered, said):
    group = Group(nodes_that_tally(6)).begin()
    group.there = np.array([True, True, True, True, False, False])
    group.train(0)
    with pytest.raises(InputError, match=said):
        group.unmask(0, delivered)


def test_training_with_too_few_is_refused():
    group = Group(nodes_that_tally(6)).begin()
    group.there = np.array([True, True, True, False, False, False])
    with pytest.raises(InputError, match="3 of 6 nodes of the group are left, 4 are needed"):
        group.train(0)


@pytest.mark.parametrize("how", ["tampered", "swapped", "of another session", "misdirected"])
def test_shares_that_are_not_as_they_were_sealed_are_refused(how):
    nodes = nodes_that_tally(4)
    before = Group(nodes, session=9).begin()
    group = Group(nodes).begin()
    if how == "tampered":
        group.sealed[2, 0, 20] ^= 1
    elif how == "swapped":
        group.sealed[[1, 2], 0] = group.sealed[[2, 1], 0]
    elif how == "misdirected":
        group.sealed[2, 0] = group.sealed[2, 1]
    else:
        group.sealed[2, 0] = before.sealed[2, 0]
    with pytest.raises(InputError, match="shares of node [12] of the group were changed") as told:
        group.train(0)
    assert "\n" not in str(told.value)
    assert group.train(1)["count/users"].dtype == np.uint64  # the others go on


def test_keys_that_are_not_those_given_are_refused():
    nodes = nodes_that_tally(3)
    group = Group(nodes)
    group.give_keys()
    mine = {name: one.copy() for name, one in group.keys[0].items()}
    group.keys[0] = {**mine, MASK_KEYS: mine[MASK_KEYS] + np.uint8(1)}
    with pytest.raises(InputError, match="row 0 of secure/mask_keys is not the key that"):
        nodes[0].answer(group.shares_order(0))
    group.keys[0] = mine
    with pytest.raises(InputError, match="row 1 of secure/mask_keys is not the key that"):
        nodes[0].answer(group.shares_order(1))
    group.keys[2] = group.keys[1]
    with pytest.raises(InputError, match="two nodes have one key in secure/mask_keys"):
        nodes[0].answer(group.shares_order(0))
    group.keys = group.keys[:2]
    with pytest.raises(InputError, match="2 of 2 nodes of the group are left, 3 are needed"):
        nodes[0].answer(group.shares_order(0))


def test_a_group_that_is_too_large_is_refused():
    group = Group(nodes_that_tally(6, secure={"on": True, "group": 5}))
    group.give_keys()
    with pytest.raises(InputError, match="a group of 6 nodes, but federated.secure.group is 5"):
        group.give_shares()


def test_an_order_of_an_old_session_or_round_is_refused():
    nodes = nodes_that_tally(3)
    old, group = Group(nodes).begin(), Group(nodes, session=2).begin()
    with pytest.raises(InputError, match="session 01010101 is not known here"):
        old.train(0)
    group.round = 2
    with pytest.raises(InputError, match="session 02020202 is not known here"):
        group.train(0)


def test_a_plain_order_gets_nothing_from_a_node_that_masks():
    """And one that does not mask knows nothing of sessions."""
    (node, *_) = nodes_that_tally(3)
    method = node.method
    with pytest.raises(InputError, match='"secure/session" is missing'):
        node.answer(Order("train", 1, PROTOCOL, 1.0, method.start()))
    (plain,) = nodes_of(method_of("tallying"), ring(3), 1)
    with pytest.raises(InputError, match="train.keys was asked.*same federated.secure.on"):
        Group([plain]).give_keys()


def test_a_session_lies_in_a_file_of_its_owner_and_is_gone_afterwards(tmp_path):
    nodes = nodes_that_tally(3, tmp_path)
    group = Group(nodes).begin()
    path = tmp_path / "node-0" / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_bytes()
    group.train(0)
    again = nodes_that_tally(3, tmp_path)  # other processes
    other = Group(again, session=7)
    other.give_keys()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() != first
    other.give_shares()
    other.nodes = nodes_that_tally(3, tmp_path)
    other.train(0)
    other.nodes = nodes_that_tally(3, tmp_path)
    other.unmask(0, [True] * 3)
    assert not path.exists()
    assert not list(path.parent.glob("session*"))


def test_what_is_explained_is_what_is_checked():
    method = method_of(**secured(3), local=LOCAL, client_evaluation=True)
    found = explain(method)
    kinds = ("train.keys", "train.shares", "train", "train.unmask", "evaluate")
    assert set(found.up) == {one for kind in kinds for one in going_up(method, kind)}
    assert set(found.down) == {one for kind in kinds for one in coming_down(method, kind)}
    up = {one.name: one for one in found.up}
    assert up["items.weight"].dtype == "uint32"
    assert up["count/users"].dtype == "uint64"
    assert {SESSION, MASK_KEYS, SHARE_KEYS, SELF_SHARES, KEY_SHARES} <= set(up)
    assert up[SELF_SHARES].shape == (32, 16)
    assert any("never of fewer than three" in one for one in found.sentences)
    assert any("not masked" in one for one in found.sentences)
    group = Group(nodes_of(method, ring(3), 3)).begin()
    sent = set(group.keys[0]) | {"secure/sealed_shares"} | set(group.train(0))
    sent |= set(group.unmask(0, [True] * 3)) | {one.name for one in going_up(method, "evaluate")}
    assert sent == set(up)
