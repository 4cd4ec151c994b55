"""Updates as bytes: right in the mean, off by less than a step, declared, counted, restored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_arrays

from foretaste.errors import InputError
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Declared, check
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.messages import PROTOCOL, Order, encode
from foretaste.federated.core.node import going_up
from foretaste.federated.core.rounding import SCALE, as_bytes, from_bytes, step_of, to_bytes
from foretaste.federated.core.server import Server
from foretaste.federated.explaining import explain
from foretaste.recommenders.als import ALS

from .rings import method_of, nodes_of, ring, server_of

TABLE = (Declared("table", "float32", (5, 8), "", ""),)
WIDE = 64
"""Of item vectors, so that values are more than headers."""


def table_method(name: str = "pfedrec", **config) -> FederatedMethod:
    return method_of(name, model=ALS(factors=WIDE), items=240, **config)


def upload(name: str = "pfedrec", how: str = "int8", **config) -> FederatedMethod:
    return table_method(name, upload=how, clients=1.0, **config)


def order_of(method: FederatedMethod, round: int = 1) -> Order:
    sent = method.to_send(method.start(), round)
    return Order("train", round, PROTOCOL, 1.0, sent)


finite = st.floats(-(2.0**127), 2.0**127, width=32)


@settings(max_examples=200)
@given(any_arrays(np.float32, (5, 8), elements=finite), st.integers(0, 2**64 - 1))
def test_a_value_is_off_by_less_than_a_step(table, seed):
    sent = to_bytes({"table": table}, TABLE, seed)
    check(sent, as_bytes(TABLE), "here")
    assert sent["table"].min() >= -127
    back = from_bytes(sent, TABLE)["table"].astype(np.float64)
    steps = step_of(table).astype(np.float64)
    assert np.abs(back - table).max() <= (1 + 1e-5) * steps.max()
    assert (np.abs(back - table) <= (1 + 1e-5) * steps).all()


def test_the_mean_of_many_roundings_is_the_value():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(5, 8)).astype(np.float32) * np.array([[1], [10], [1e-6], [0], [1e6]])
    table = table.astype(np.float32)
    tries = 4000
    backs = [
        from_bytes(to_bytes({"table": table}, TABLE, seed), TABLE)["table"] for seed in range(tries)
    ]
    step, found = step_of(table), np.mean(backs, 0, dtype=np.float64)
    # The deviation of one rounding is half a step at most; five deviations of the mean.
    assert (np.abs(found - table) <= 5 * 0.5 * step / np.sqrt(tries) + 1e-12).all()
    # Rounding to the nearest would be off by far more than that.
    nearest = np.rint(table / step) * step
    assert (np.abs(nearest - table) > 5 * 0.5 * step / np.sqrt(tries)).any()
    assert len({one[0].tobytes() for one in backs}) > 100
    assert not np.stack(backs)[:, 3].any()


def test_numbers_that_are_whole_steps_do_not_change():
    steps = np.arange(-127, 128, dtype=np.float32)[None] * np.float32(0.5)
    declared = (Declared("t", "float32", steps.shape, "", ""),)
    for seed in range(20):
        np.testing.assert_array_equal(
            from_bytes(to_bytes({"t": steps}, declared, seed), declared)["t"], steps
        )


def test_rows_lie_along_the_last_axis_and_counts_stay():
    declared = (
        Declared("deep", "float32", (2, 3, 4), "what", "why"),
        Declared("bias", "float32", (6,), "", ""),
        Declared("touched", "float32", (7, 1), "", ""),
        Declared("number", "float32", (), "", ""),
        Declared("whole", "int64", (4,), "", ""),
    )
    found = {one.name: (one.dtype, one.shape) for one in as_bytes(declared)}
    assert found == {
        "deep": ("int8", (2, 3, 4)),
        "scale/deep": ("float32", (2, 3, 1)),
        "bias": ("int8", (6,)),
        "scale/bias": ("float32", (1,)),
        "touched": ("float32", (7, 1)),
        "number": ("float32", ()),
        "whole": ("int64", (4,)),
    }


@pytest.mark.parametrize("name", ["pfedrec", "fedrap", "fedmf"])
def test_bytes_are_a_quarter_and_are_those_of_the_message(name):
    ups = {}
    for how in ("float32", "int8"):
        method = upload(name, how)
        server = server_of(method, ring(12, items=240), nodes=12)
        ups[how] = server.step().up
        (node, *_) = nodes_of(method, ring(12, items=240), 12)
        whole = len(encode(node.answer(order_of(method))))
        assert whole == pytest.approx(ups[how], abs=24)  # counts have more digits, or fewer
    values = 240 * WIDE
    assert ups["float32"] > 4 * values
    assert values + 4 * 240 < ups["int8"] < values + 4 * 240 + 900  # names, shapes, counts
    assert ups["float32"] / ups["int8"] > 3.5


def test_flower_carries_the_bytes():
    pytest.importorskip("flwr", reason="the extra 'federated' is not installed")
    from foretaste.federated.engines.flower import from_records, size_of, to_records

    sizes = {}
    for how in ("float32", "int8"):
        method = upload(how=how)
        (node,) = nodes_of(method, ring(5, items=240), 1)
        reply = node.answer(order_of(method))
        records = to_records(reply)
        sizes[how] = size_of(records)
        back = from_records(records, "train", "here")
        check(back.arrays, going_up(method, "train"), "here")
        np.testing.assert_array_equal(back.arrays["table"], reply.arrays["table"])
    assert sizes["float32"] / sizes["int8"] > 3.5


@pytest.mark.parametrize("name", ["pfedrec", "fedrap"])
def test_what_stays_is_untouched_and_sums_are_near(name):
    kept, sums = {}, {}
    for how in ("float32", "int8"):
        method = upload(name, how)
        (node,) = nodes_of(method, ring(9, items=240), 1)
        reply = node.answer(order_of(method))
        restored = from_bytes(reply.arrays, method.up()) if how == "int8" else reply.arrays
        kept[how], sums[how] = node.store.before(2)[0], restored["table"]
    for key, before in kept["float32"].items():
        for one, other in zip(before, kept["int8"][key], strict=True):
            np.testing.assert_array_equal(one, other)
    wrong = np.abs(sums["float32"] - sums["int8"])
    assert wrong.max() > 0
    assert (wrong <= step_of(sums["float32"]) * (1 + 1e-5)).all()


def test_a_round_asked_again_sends_the_same_and_another_rounds_anew():
    method = upload()
    replies = [
        nodes_of(method, ring(5, items=240), 1)[0].answer(order_of(method)) for _ in range(2)
    ]
    assert encode(replies[0]) == encode(replies[1])
    ones, declared = np.full((2, 50), 0.3, np.float32), (Declared("t", "float32", (2, 50), "", ""),)
    ones[:, 0] = 1.0
    (node,) = nodes_of(method, ring(5, items=240), 1)
    node.method.up = lambda: declared  # type: ignore[method-assign]
    found = [node._rounded({"t": ones}, round)["t"] for round in (1, 1, 2)]
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_the_list_that_is_explained_is_the_one_that_is_sent():
    method = upload()
    (node,) = nodes_of(method, ring(4, items=240), 1)
    found = {one.name: one for one in explain(method).up}
    sent = node.answer(order_of(method)).arrays
    assert found.keys() == sent.keys()
    assert {name: array.dtype.name for name, array in sent.items()} == {
        name: one.dtype for name, one in found.items()
    }
    assert found["table"].dtype == "int8"
    assert found[SCALE + "table"].shape == (240, 1)


class Tampering(LocalFleet):
    """Replies of one node are changed on their way."""

    def __init__(self, nodes, change) -> None:
        super().__init__(nodes)
        self.change = change

    def ask(self, orders, wait):
        for one in super().ask(orders, wait):
            changed = one.reply and one.reply._replace(arrays=self.change(dict(one.reply.arrays)))
            yield one._replace(reply=changed) if one.node == "node 001" else one


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sent: {**sent, "table": sent["table"].astype(np.float32)}, "declared as int8"),
        (lambda sent: {**sent, "table": sent["table"].astype(np.uint8)}, "declared as int8"),
        (lambda sent: {name: sent[name] for name in sent if "scale" not in name}, "missing"),
        (lambda sent: {**sent, "scale/table": sent["scale/table"][:3]}, "declared as float32"),
        (lambda sent: {**sent, "scale/table": sent["scale/table"] * np.nan}, "not finite"),
        (
            # Each step is a number; what it makes of the bytes is none.
            lambda sent: {
                **sent,
                "table": np.full_like(sent["table"], 127),
                "scale/table": np.full_like(sent["scale/table"], 3e38),
            },
            "not finite",
        ),
    ],
    ids=["float32", "uint8", "no steps", "few steps", "nan", "overflow"],
)
def test_what_is_not_as_declared_is_left_out(change, said):
    method = upload()
    fleet = Tampering(nodes_of(method, ring(6, items=240), 2), change)
    done = Server(method, fleet, clients=6).step()
    assert done.users == 3
    assert any(said in problem for problem in done.problems)


def test_bytes_are_refused_where_float32_was_declared():
    method = upload(how="float32")
    bytes_of = upload()
    (node,) = nodes_of(bytes_of, ring(3, items=240), 1)
    sent = node.answer(order_of(bytes_of)).arrays
    with pytest.raises(InputError, match='"scale/table" is not on the list'):
        check(sent, going_up(method, "train"), "here")
    del sent["scale/table"]
    with pytest.raises(InputError, match="declared as float32"):
        check(sent, going_up(method, "train"), "here")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_no_number_stays_at_the_node(bad):
    method = upload()
    honest = method.train

    def diverging(received, users, round, *, each):
        found = honest(received, users, round, each=each)
        weights = found.updates.weights * bad
        return found._replace(updates=replace(found.updates, weights=weights))

    method.train = diverging  # type: ignore[method-assign]
    (node,) = nodes_of(method, ring(3, items=240), 1)
    with pytest.raises(InputError, match='"table" holds values that are not finite'):
        node.answer(order_of(method))


def test_a_node_without_users_sends_zeros():
    method = upload()
    (node,) = nodes_of(method, ring(3, items=240).take(np.zeros(0, int)), 1)
    sent = node.answer(order_of(method)).arrays
    assert not sent["table"].any()
    assert np.isfinite(sent["scale/table"]).all()


@pytest.mark.parametrize("nodes", [1, 10])
def test_learning_goes_on_as_with_float32(nodes):
    losses = {}
    for how in ("float32", "int8"):
        method = upload(how=how, rounds=12, server={"learning_rate": 0.1})
        curve = server_of(method, ring(10, items=240), nodes).run().curve
        losses[how] = [one.loss or 0.0 for one in curve]
    assert losses["int8"][-1] < 0.9 * losses["int8"][0]
    assert losses["int8"][-1] == pytest.approx(losses["float32"][-1], abs=0.03)


def test_networks_travel_as_bytes_too_and_robust_rules_see_numbers():
    config = {"upload": "int8", "clients": 1.0, "rounds": 2, "local": {"epochs": 1}}
    method = method_of("fedavg", **config, robust={"rule": "median"})
    done = server_of(method, ring(6), nodes=6).run()
    assert all(np.isfinite(array).all() for array in done.state.values())
    assert not done.curve[-1].problems
    start = method.start()
    assert any((done.state[name] != start[name]).any() for name in start)


def test_noise_of_the_server_is_refused_and_that_of_clients_is_not():
    noise = {"clip": 0.1, "noise": 1.0}
    with pytest.raises(InputError, match="rounds sums before the server adds its noise"):
        upload(privacy=noise)
    method = upload(privacy={**noise, "where": "client"})
    assert not server_of(method, ring(5, items=240), 1).step().problems


def test_evaluation_replies_pass_as_they_are():
    method = upload(client_evaluation=True, rounds=1)
    done = server_of(method, ring(8, items=240)).step()
    assert done.on_clients
    assert not done.problems


def test_a_killed_server_goes_on_bit_for_bit(tmp_path):
    histories, method = ring(8, items=240), upload(rounds=4)
    whole = server_of(method, histories, folder=tmp_path / "whole").run()
    cut = server_of(method, histories, folder=tmp_path / "cut")
    cut.step()
    cut.step()
    ended = server_of(method, histories, folder=tmp_path / "cut").run()
    np.testing.assert_array_equal(ended.state["table"], whole.state["table"])
