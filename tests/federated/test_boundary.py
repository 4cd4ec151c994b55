"""Nothing passes but what was declared; what is damaged or strange is refused and told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.errors import InputError
from foretaste.federated.core.base import Trained
from foretaste.federated.core.boundary import Declared, check
from foretaste.federated.core.fleet import Delivery, LocalFleet
from foretaste.federated.core.messages import PROTOCOL, Order, Reply, decode, encode
from foretaste.federated.core.node import going_up
from foretaste.federated.core.server import Server
from foretaste.federated.core.updates import Updates
from foretaste.federated.explaining import explain

from . import tallying
from .rings import keys_of, method_of, nodes_of, ring, server_of

assert tallying
DECLARED = (Declared("a", "float32", (2, 3), "", ""), Declared("n", "int64", (), "", ""))


def arrays(**changed) -> dict[str, np.ndarray]:
    return {"a": np.ones((2, 3), np.float32), "n": np.array(4, np.int64), **changed}


def test_what_was_declared_passes():
    check(arrays(), DECLARED, "here")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"history": np.array([1, 2])}, r'"history" is not on the list'),
        ({"a": np.ones((2, 3))}, r"is float64 \[2, 3\], declared as float32 \[2, 3\]"),
        ({"a": np.ones((3, 2), np.float32)}, r"is float32 \[3, 2\]"),
        ({"a": np.full((2, 3), np.nan, np.float32)}, "not finite"),
        ({"a": np.full((2, 3), np.inf, np.float32)}, "not finite"),
        ({"n": np.array([4])}, r"is int64 \[1\]"),
    ],
)
def test_anything_else_is_refused(changed, said):
    with pytest.raises(InputError, match=rf"^node 3: {said}" if "histo" in said else said):
        check(arrays(**changed), DECLARED, "node 3")


def test_a_missing_array_is_refused():
    with pytest.raises(InputError, match='"n" is missing'):
        check({"a": np.ones((2, 3), np.float32)}, DECLARED, "here")


def test_messages_come_back_as_they_went():
    sent = Order("train", 7, PROTOCOL, 0.25, arrays())
    back = decode(encode(sent), "here")
    assert isinstance(back, Order)
    assert back[:4] == sent[:4]
    assert back.arrays["n"].shape == ()
    np.testing.assert_array_equal(back.arrays["a"], sent.arrays["a"])


@settings(max_examples=60)
@given(cut=st.integers(0, 400), junk=st.binary(max_size=20))
def test_a_message_cut_short_is_told(cut, junk):
    whole = encode(Reply("train", 1, PROTOCOL, arrays()))
    content = whole[: min(cut, len(whole) - 1)] + junk
    if content == whole:
        return
    with pytest.raises(InputError, match=r"node 1: a message was cut short or is not one of ours"):
        decode(content, "node 1")


@pytest.mark.parametrize(("protocol", "side"), [(PROTOCOL + 1, "receiver"), (0, "sender")])
def test_a_node_of_another_version_is_told_who_must_be_updated(protocol, side):
    method = method_of("tallying", clients=1.0)
    (node,) = nodes_of(method, ring(4), 1)
    with pytest.raises(InputError, match=f"Update Foretaste at the {side}"):
        node.answer(Order("train", 1, protocol, 1.0, method.start()))


def test_a_method_that_leaks_is_stopped_at_the_node():
    method = method_of("tallying", clients=1.0)
    honest = method.train

    def leaking(received, users, round, *, each):
        found = honest(received, users, round, each=each)
        parts = {**found.updates.parts, "history": found.updates.parts["tally"]}
        return found._replace(updates=Updates(found.updates.weights, parts))

    method.train = leaking  # type: ignore[method-assign]
    (node,) = nodes_of(method, ring(4), 1)
    with pytest.raises(InputError, match='"history", which is not on its list'):
        node.answer(Order("train", 1, PROTOCOL, 1.0, method.start()))


class Tampering(LocalFleet):
    """Replies of one node are changed on their way."""

    def __init__(self, nodes, change) -> None:
        super().__init__(nodes)
        self.change = change

    def ask(self, orders, wait):
        for one in super().ask(orders, wait):
            yield self.change(one) if one.node == "node 001" and one.reply else one


def _reply(one: Delivery, **fields) -> Delivery:
    assert one.reply is not None
    return one._replace(reply=one.reply._replace(**fields))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: _reply(one, protocol=PROTOCOL + 1), "protocol"),
        (lambda one: _reply(one, round=0), "came late"),
        (lambda one: _reply(one, arrays={}), "missing"),
        (
            lambda one: _reply(
                one, arrays={**one.reply.arrays, "tally": np.full(24, np.nan, np.float32)}
            ),
            "not finite",
        ),
        (lambda one: one._replace(reply=None, problem="a message was cut short"), "cut short"),
    ],
    ids=["newer app", "old round", "empty", "nan", "cut short"],
)
def test_a_bad_reply_is_left_out_and_the_round_goes_on(change, said):
    method = method_of("tallying", clients=1.0)
    histories = ring(6)
    server = Server(method, Tampering(nodes_of(method, histories, 2), change), clients=6)
    done = server.step()
    assert done.users == 3
    assert any(said in problem for problem in done.problems)
    others = histories.take(np.array([0, 2, 4]))
    np.testing.assert_array_equal(
        server.now.state["tally"], np.bincount(others.items, minlength=24)
    )


def test_a_node_that_breaks_is_left_out_and_the_round_goes_on(caplog):
    method = method_of("tallying", clients=1.0)
    histories, told = ring(6), []
    server = server_of(method, histories, 2, log=lambda event, **facts: told.append(facts))
    server.fleet._nodes["node 001"].users = None  # type: ignore[attr-defined]
    done = server.step()
    assert (done.users, done.nodes) == (3, 1)
    assert [one["node"] for one in told if "problem" in one] == ["node 001"]
    assert "node 001, round 1: AttributeError" in told[0]["problem"]
    assert "Traceback" in caplog.text


def test_an_update_that_is_not_finite_stays_at_the_node():
    method = method_of("tallying", clients=1.0)
    honest = method.train

    def diverging(received, users, round, *, each) -> Trained:
        found = honest(received, users, round, each=each)
        bad = float("nan") if keys_of(6)[1] in users.keys else 1.0
        return found._replace(updates=replace(found.updates, weights=found.updates.weights * bad))

    method.train = diverging  # type: ignore[method-assign]
    done = server_of(method, ring(6), 2).step()
    assert done.users == 3
    assert any("not finite" in problem for problem in done.problems)


def test_what_is_explained_is_what_is_checked():
    method = method_of("fedavg", client_evaluation=True)
    found = explain(method)
    assert found.up[: len(going_up(method, "train"))] == going_up(method, "train")
    server = server_of(method_of("fedavg", clients=1.0, local={"epochs": 1}), ring(6), 1)
    (node,) = server.fleet._nodes.values()  # type: ignore[attr-defined]
    method = node.method
    reply = node.answer(Order("train", 1, PROTOCOL, 1.0, method.start()))
    assert set(reply.arrays) == {one.name for one in explain(method).up}
    assert not any(one.dtype in ("object", "str") for one in found.up)


def test_with_noise_the_loss_stays_at_home():
    quiet = method_of("fedavg", privacy={"clip": 1.0, "noise": 1.0})
    names = [one.name for one in going_up(quiet, "train")]
    assert "figure/loss" not in names
    assert any("noise" in sentence for sentence in explain(quiet).sentences)


def test_no_item_or_user_id_is_in_a_reply():
    method = method_of("fedavg", clients=1.0, local={"epochs": 1})
    (node,) = nodes_of(method, ring(3), 1)
    content = encode(node.answer(Order("train", 1, PROTOCOL, 1.0, method.start())))
    assert not any(f"i{number:03d}".encode() in content for number in range(24))
    assert not any(key.tobytes() in content for key in keys_of(3))
