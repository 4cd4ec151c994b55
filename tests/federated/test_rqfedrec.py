"""RQFedRec: codebooks, the curriculum, and what the server makes of sums."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError
from foretaste.federated.core.base import LocalUsers, Sums, World
from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.chosen_items import drawn_examples
from foretaste.federated.core.curiosity import infer_histories
from foretaste.federated.core.messages import PROTOCOL, Order, encode
from foretaste.federated.core.node import going_up
from foretaste.federated.rqfedrec import RQFedRec, RQFedRecConfig, residual_codes
from foretaste.recommenders.als import ALS
from foretaste.recommenders.core.configuring import build_config

from .rings import ITEMS, keys_of, nodes_of, ring, same, server_of
from .test_fedmf import summed, users_of

DIM = 4
KINDS = ("red", "green", "blue")


def catalog() -> Catalog:
    """Titles of three kinds, dealt in turn."""
    ids = pl.Series([f"i{number:03d}" for number in range(ITEMS)])
    titles = [f"{KINDS[number % 3]} thing of {KINDS[number % 3]} make" for number in range(ITEMS)]
    return Catalog.from_items(ids, pl.DataFrame({"item_id": ids, "title": titles}))


def method_of(items: Catalog | None = None, **config) -> RQFedRec:
    small = {
        "semantic_levels": 1,
        "semantic_size": 3,
        "collaborative_levels": 2,
        "collaborative_size": 4,
        "refresh": 2,
        "sketch": 5,
        "mix_rounds": 4,
        "precision": "float32",
        "upload": "float32",
    }
    built = build_config(RQFedRecConfig, small | config, place="test")
    return RQFedRec(built, World(items or catalog(), ALS(factors=DIM), seed=3))


def test_semantic_codes_follow_the_text():
    codes = method_of().start()["semantic/codes"]
    assert [len(set(codes[kind::3, 0].tolist())) for kind in range(3)] == [1, 1, 1]
    assert len(set(codes[:, 0].tolist())) == 3


def test_a_catalog_without_text_is_told():
    bare = Catalog.from_items(pl.Series([f"i{number}" for number in range(9)]), None)
    with pytest.raises(InputError, match="text"):
        method_of(bare).start()
    assert method_of(bare, semantic="random").start()["semantic/codes"].shape == (9, 1)
    assert "semantic/codes" not in method_of(bare, semantic_levels=0).start()


def test_residual_codes_leave_nothing_of_points_that_fit():
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    offsets = np.array([[1, 0], [-1, 0]], np.float32)
    points = (centres[:, None] + offsets).reshape(-1, 2)
    codes, table = residual_codes(points, 2, 4, seed=0)
    made = table[codes[:, 0]] + table[4 + codes[:, 1].astype(int)]
    np.testing.assert_allclose(made, points, atol=1e-5)


def test_a_vector_is_the_mix_of_both_channels():
    method = method_of(first_mix=0.25, last_mix=0.25)
    state = dict(method.start())
    state["collaborative/table"] = np.random.default_rng(0).normal(size=(8, DIM)).astype(np.float32)
    semantic, codes = state["semantic/codes"][:, 0], state["collaborative/codes"].astype(int)
    table = state["collaborative/table"]
    wanted = 0.75 * state["semantic/table"][semantic]
    wanted = wanted + 0.25 * (table[codes[:, 0]] + table[4 + codes[:, 1]])
    np.testing.assert_allclose(method.item_vectors(state), wanted, atol=1e-6)
    np.testing.assert_allclose(method.item_vectors(method.to_send(state, 1)), wanted, atol=1e-6)
    np.testing.assert_allclose(
        method.recommender(state)._arrays()["factors"][:, :DIM], wanted, atol=1e-6
    )


def test_the_curriculum():
    method = method_of(first_mix=0.1, last_mix=0.9, mix_rounds=4)
    assert [method.mix(round) for round in (1, 2, 3, 5, 6, 99)] == pytest.approx(
        [0.1, 0.3, 0.5, 0.9, 0.9, 0.9]
    )
    assert method_of(first_mix=0.4, last_mix=0.4).mix(50) == pytest.approx(0.4)
    assert method_of(collaborative_levels=0).mix(50) == 0.0
    assert method_of(semantic_levels=0).mix(1) == 1.0
    server = server_of(method, ring(12), nodes=1)
    server.step()
    server.step()
    assert float(server.now.state["mix"][0]) == pytest.approx(0.5)  # that of round 3


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"average": "all", "sketch": 0, "weighting": "events"},
        {"semantic_levels": 0, "local": {"epochs": 2}},
        {"collaborative_levels": 0},
        {"precision": "int8"},
    ],
    ids=lambda config: "-".join(config) or "plain",
)
def test_many_users_on_a_node_equal_nodes_of_one(config):
    # A large epsilon, and no new codes: both would make whole steps of what is only rounding.
    config = {"server": {"epsilon": 0.01}, "rounds": 2, "refresh": 0, "clients": 0.7, **config}
    histories, states = ring(20), []
    for nodes in (20, 1):
        states.append(server_of(method_of(**config), histories, nodes).run().state)
    same(states[0], states[1], 1e-5 if "precision" not in config else 1e-4)
    start = method_of(**config).start()
    assert any(np.abs(states[0][name] - start[name]).max() > 1e-4 for name in start)


def test_a_code_is_averaged_over_the_clients_that_touched_it():
    """By hand: a sum of 3 from one client of four is 3; a sum of 8 from all four is 2."""
    method = method_of(
        first_mix=0.5, server={"optimizer": "average", "learning_rate": 1.0, "momentum": 0.0}
    )
    before = method.start()
    rows = method.rows
    sums = {
        "table": np.zeros((rows, DIM), np.float32),
        "touched": np.zeros((rows, 1), np.float32),
        "sketch": np.zeros((5, DIM), np.float32),
    }
    sums["table"][0], sums["touched"][0] = 3.0, 1.0
    sums["table"][4], sums["touched"][4] = 8.0, 4.0
    after = method.next_state(before, Sums(sums, 4.0, 4), 1)
    semantic = after["semantic/table"] - before["semantic/table"]
    collaborative = after["collaborative/table"] - before["collaborative/table"]
    # Both times the weight of their channel, 0.5.
    np.testing.assert_allclose(semantic[:2, 0], [1.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(collaborative[:2, 0], [0.0, 1.0], atol=1e-6)


def test_touched_codes_are_those_of_history_and_negatives():
    method, histories = method_of(), ring(3)
    users = users_of(method, histories)
    found = summed(method, method.train(method.to_send(method.start(), 1), users, 1, each=False))
    chosen = drawn_examples(histories, users.draws, 4, ITEMS)
    codes, wanted = method.codes(method.start()), np.zeros(method.rows)
    for user in range(3):
        items = chosen.items[user][chosen.weights[user] > 0].numpy()
        wanted[np.unique(codes[items])] += 1
    np.testing.assert_array_equal(found["touched"][:, 0], wanted)


def measured_sums(method: RQFedRec, state: Arrays, asked: np.ndarray, round: int) -> Arrays:
    """What clients would send together if items asked for ``asked``, computed plainly."""
    table = np.zeros((method.rows, DIM))
    for item, row in itertools.product(range(ITEMS), range(method.codes(state).shape[1])):
        table[method.codes(state)[item, row]] += asked[item]
    rows, signs = method.buckets(round)
    sketch = np.zeros((method.config.sketch, DIM))
    for item in range(ITEMS):
        sketch[rows[item]] += signs[item] * asked[item]
    return {"table": table, "sketch": sketch}


def test_what_items_ask_for_agrees_with_all_sums_and_comes_out_right_in_the_mean():
    method, rng = method_of(), np.random.default_rng(1)
    state, asked = method.start(), rng.normal(size=(ITEMS, DIM))
    sums = measured_sums(method, state, asked, 1)
    # Without a sketch the estimate is the least change that explains the codes' sums.
    plain = method_of(sketch=0)
    least = plain.asked_by_items(state, {"table": sums["table"]}, 1)
    np.testing.assert_allclose(
        measured_sums(method, state, least, 1)["table"], sums["table"], atol=1e-2
    )
    assert np.linalg.norm(least) < np.linalg.norm(asked)
    # With it, the mean over rounds comes nearer to the truth than without.
    rounds = range(1, 400)
    found = [
        method.asked_by_items(state, measured_sums(method, state, asked, round), round)
        for round in rounds
    ]
    wrong = np.linalg.norm(np.mean(found, 0) - asked)
    assert wrong < 0.3 * np.linalg.norm(least - asked)


def test_a_rare_item_is_found_in_the_sketch_alone():
    """Items of equal codes that ask for opposite things: their codes' sums say nothing."""
    method = method_of(collaborative_levels=1, collaborative_size=2, sketch=12)
    state = dict(method.start())
    state["collaborative/codes"] = np.zeros((ITEMS, 1), np.uint8)
    asked = np.zeros((ITEMS, DIM))
    asked[0], asked[3] = 1.0, -1.0  # both red
    total = np.zeros((ITEMS, DIM))
    for round in range(1, 60):
        total += method.asked_by_items(state, measured_sums(method, state, asked, round), round)
    mean = total[:, 0] / 59
    assert mean.argmax() == 0
    assert mean.argmin() == 3
    assert np.abs(np.delete(mean, [0, 3])).max() < 0.5 < min(mean[0], -mean[3])


def test_codes_are_made_from_the_servers_vectors_and_nothing_else():
    method = method_of(rounds=4)
    server = server_of(method, ring(20), nodes=1)
    server.step()
    first = server.now.state["collaborative/codes"]
    done = server.step()
    state = server.now.state
    assert (state["collaborative/codes"] != first).any()
    again = residual_codes(state["server/items"], 2, 4, method.world.seed + 2)
    np.testing.assert_array_equal(state["collaborative/codes"], again.codes)
    np.testing.assert_array_equal(state["collaborative/table"], again.table)
    assert "server/first/collaborative/table" not in state
    assert "server/first/semantic/table" in state
    # And those vectors never go down.
    assert not [one.name for one in method.down() if one.name.startswith("server/")]
    assert done.users == 20


def test_codes_rest_in_the_last_rounds():
    method = method_of(rounds=6, refresh=1, settle=3)
    server = server_of(method, ring(20), nodes=1)
    seen = []
    for _ in range(6):
        server.step()
        seen.append(server.now.state["collaborative/codes"])
    assert [np.array_equal(*pair) for pair in itertools.pairwise(seen)][-3:] == [True] * 3
    assert not np.array_equal(seen[1], seen[2])


def test_bytes_are_those_of_codebooks_and_codes_go_down_when_they_change():
    method = method_of(clients=1.0, rounds=4)
    server = server_of(method, ring(12), nodes=12)
    downs, ups = zip(
        *[(one.down, one.up) for one in (server.step() for _ in range(4))], strict=True
    )
    table, codes = 4 * DIM * (3 + 2 * 4), ITEMS * (1 + 2)
    declared = {one.name: one.bytes for one in method.down()}
    assert declared == {
        "table": table,
        "semantic/codes": ITEMS,
        "collaborative/codes": 2 * ITEMS,
    }
    # Rounds 1 and 3: everything, then only the collaborative codes, which round 2 made anew.
    assert downs[0] - downs[1] == codes
    assert downs[2] - downs[1] == 2 * ITEMS
    assert downs[3] == downs[1]
    order = Order("train", 2, PROTOCOL, 1.0, {"table": np.zeros((11, DIM), np.float32)})
    assert downs[1] == len(encode(order))
    up = table + 4 * 11 + 4 * DIM * 5
    assert up < ups[0] < up + 900  # names, shapes, counts


def test_a_killed_server_goes_on_bit_for_bit(tmp_path):
    histories = ring(15)
    whole = server_of(method_of(rounds=5), histories, folder=tmp_path / "whole").run()
    cut = server_of(method_of(rounds=5), histories, folder=tmp_path / "cut")
    for _ in range(3):
        cut.step()
    ended = server_of(method_of(rounds=5), histories, folder=tmp_path / "cut").run()
    assert ended.state.keys() == whole.state.keys()
    for name, array in whole.state.items():
        np.testing.assert_array_equal(array, ended.state[name])


def test_bytes_of_int8_and_its_error():
    method, exact = method_of(precision="int8", spread=1.0), method_of(spread=1.0)
    state = method.start()
    sent = method.to_send(state, 1)
    assert sent["table"].dtype == np.int8
    wanted = exact.item_vectors(state)
    assert np.abs(method.item_vectors(sent) - wanted).max() < np.abs(wanted).max() / 100


def test_bytes_both_ways_are_a_third_of_float32():
    """As declared: codebooks and sketch a byte a number, a step a row, counts as they are."""
    ups = {}
    for how in ("float32", "int8"):
        config = build_config(
            RQFedRecConfig,
            {"precision": how, "upload": how, "clients": 1.0, "semantic": "random"},
            place="test",
        )
        method = RQFedRec(config, World(catalog(), ALS(factors=32), seed=3))
        server = server_of(method, ring(12), nodes=12)
        done = server.step()
        assert not done.problems
        assert np.isfinite(server.now.state["collaborative/table"]).all()
        ups[how] = sum(one.bytes for one in going_up(method, "train"))
        assert ups[how] < done.up < ups[how] + 1200  # names, shapes, checksum
    rows, sketch = 2 * 64 + 12 * 32, 1024  # of the settings by default
    counts = ups["float32"] - 4 * (32 * rows + rows + 32 * sketch)
    assert ups["int8"] == 32 * (rows + sketch) + 4 * (rows + sketch) + 4 * rows + counts
    assert ups["float32"] / ups["int8"] > 3.3
    assert RQFedRecConfig().upload == RQFedRecConfig().precision == "int8"


def test_a_curious_server_reads_codes_and_sketch():
    """It reads one user as it reads a round: with a sketch it tells items that share all codes."""
    found = {}
    kinds: dict[str, dict[str, Any]] = {
        "all": {"sketch": 64},
        "codes": {"sketch": 0},
        "semantic": {"collaborative_levels": 0},
        "collaborative": {"semantic_levels": 0, "sketch": 64},
    }
    for name, config in kinds.items():
        method = method_of(**config, local={"negatives": 1})
        histories, keys = ring(20), keys_of(20)
        sent = method.to_send(method.start(), 1)
        seen = infer_histories(method, sent, keys, histories)
        assert np.isfinite(seen.auc).all()
        found[name] = seen.mean
    assert found["all"] > found["codes"] + 0.05 > found["semantic"] + 0.1
    assert found["collaborative"] > 0.7
    # Items of one kind share a semantic code: it alone cannot tell them apart.
    method = method_of(collaborative_levels=0)
    users = LocalUsers(keys_of(1), keys_of(1), ring(1), method.first_personal(keys_of(1)))
    sent = method.to_send(method.start(), 1)
    update = summed(method, method.train(sent, users, 1, each=True))
    evidence = method.item_evidence(update, sent, 1)
    assert all(np.ptp(evidence[kind::3]) < 1e-6 for kind in range(3))


def test_noise_and_clipping_work(tmp_path):
    method = method_of(rounds=3, average="all", privacy={"clip": 0.1, "noise": 0.5})
    done = server_of(method, ring(20), folder=tmp_path).run()
    assert all(np.isfinite(array).all() for array in done.state.values())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"semantic_levels": 0, "collaborative_levels": 0}, "both 0"),
        ({"rows": 5}, "leave it at 0"),
        ({"semantic_size": 300}, "semantic_size"),
    ],
)
def test_wrong_options_are_told(config, words):
    with pytest.raises(InputError, match=words):
        method_of(**config)


def test_nodes_train_without_reading_any_text():
    """A device is sent its codes: it does not need what they were made from."""
    method = method_of(rounds=1)
    bare = Catalog.from_items(pl.Series(catalog().item_ids), None)
    order = Order("train", 1, PROTOCOL, 1.0, method.to_send(method.start(), 1))
    replies = [
        nodes_of(one, ring(5), 1)[0].answer(order).arrays["table"]
        for one in (method, method_of(bare))
    ]
    assert torch.equal(*(torch.from_numpy(one) for one in replies))
