"""The figures of a report, known from elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foretaste.codes.neighbours import compare_neighbours
from foretaste.codes.report import (
    LevelUse,
    Stability,
    collisions_of,
    findings_of,
    level_use,
    report_on,
    same_vectors,
    stability_of,
)
from foretaste.codes.tokenizer import FitContext, find
from foretaste.errors import InputError

from .catalogs import clusters


def test_use_of_a_level() -> None:
    even = level_use(np.array([0, 1, 2, 3] * 5), 4)
    assert (even.used, even.largest, even.counts) == (4, 0.25, (5, 5, 5, 5))
    assert even.perplexity == pytest.approx(4)
    one = level_use(np.zeros(9, int), 4)
    assert one == LevelUse(4, 1, 1.0, 1.0, (9, 0, 0, 0))
    half = level_use(np.array([2, 2, 2, 0]), 3)
    assert half.perplexity == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_collisions_are_counted_by_group() -> None:
    nearest = np.array([[0, 0]] * 12 + [[0, 1]] * 2 + [[1, 1]] * 3 + [[2, 2]])
    table = np.stack([np.arange(18), np.arange(18)], 1)
    found = collisions_of(nearest, table, np.array([True] * 13 + [False] * 5))
    assert found == (17, 4, 12, 13, 0, (1, 1, 0, 0, 1, 0), 0)
    assert collisions_of(nearest, nearest, np.zeros(18, bool)).after == 17


def test_equal_vectors_are_counted() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.integers(0, 3, (40_000, 8)).astype(np.float32)
    vectors[::2] += rng.standard_normal((20_000, 8)).astype(np.float32)
    counts = np.unique(vectors, axis=0, return_counts=True)[1]
    assert same_vectors(vectors) == counts[counts > 1].sum() > 0
    assert same_vectors(np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])) == 2
    assert same_vectors(np.zeros((1, 4))) == 0


def test_renamed_codes_are_the_same_codes() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 16, (2_000, 2))
    renamed = np.stack([rng.permutation(16)[table[:, level]] for level in range(2)], 1)
    same = stability_of(table, [renamed])
    assert same.agreement == (1.0, 1.0)
    assert max(same.chance) < 0.15
    changed = renamed.copy()
    changed[:500, 0] = (changed[:500, 0] + 1) % 16
    assert stability_of(table, [changed]).agreement[0] == pytest.approx(0.75, abs=0.01)
    with pytest.raises(InputError, match="of another seed do not fit"):
        stability_of(table, [table[:-1]])


def test_many_codes_are_matched_in_little_room() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 60_000, (20_000, 1))  # a square table of them would take 29 GB
    renamed = rng.permutation(60_000)[table]
    assert stability_of(table, [renamed]).agreement == (1.0,)
    assert stability_of(np.zeros((5, 1), int), [np.arange(5)[:, None]]).agreement == (0.2,)


def test_neighbours_of_perfect_and_of_random_codes() -> None:
    vectors = clusters(300, 6, 20)
    table = np.stack([np.arange(300) % 20, np.arange(300) // 20], 1)
    perfect = compare_neighbours(vectors, vectors, table, ordered=True)
    assert perfect.overlap == 1
    assert perfect.agreement[0] == 1  # 15 items in a cluster: 10 neighbours are all of it
    assert perfect.chance[0] == pytest.approx(1 / 20, abs=0.01)
    assert perfect.agreement[1] == 0  # no two items have the same codes
    slots = compare_neighbours(vectors, vectors, table[:, ::-1], ordered=False)
    assert slots.agreement == (perfect.agreement[1], 1.0)
    noise = np.random.default_rng(0).standard_normal(vectors.shape)
    assert compare_neighbours(vectors, noise, table, ordered=True).overlap < 0.1


def test_neighbours_against_plain_sorting() -> None:
    rng = np.random.default_rng(1)
    vectors, coded = rng.standard_normal((2, 50, 4))
    shared = []
    for item in range(50):
        sets = []
        for space in (vectors, coded):
            order = np.argsort(np.square(space - space[item]).sum(1))
            sets.append(set(order[order != item][:10].tolist()))
        shared.append(len(sets[0] & sets[1]) / 10)
    found = compare_neighbours(vectors, coded, np.zeros((50, 1), int), ordered=True)
    assert found.overlap == pytest.approx(np.mean(shared))
    assert found.asked == 50


def test_a_report_is_whole_and_plain() -> None:
    vectors = clusters(120, 8, 10)
    tokenizers = [find("rqkmeans")(levels=2, size=16) for _ in range(2)]
    for seed, tokenizer in enumerate(tokenizers):
        tokenizer.fit(vectors, context=FitContext(seed, "cpu"))
    codes, other = tokenizers[0].codes, tokenizers[1].codes
    assert codes is not None and other is not None
    report = tokenizers[0].report(vectors, others=[other.nearest])
    assert report.collisions.after == 0
    assert (
        report.collisions.before
        == 120 - (np.unique(codes.nearest, axis=0, return_counts=True)[1] == 1).sum()
    )
    assert report.stability is not None and report.stability.seeds == 1
    assert report.neighbours.agreement[0] > 5 * report.neighbours.chance[0]
    coded = tokenizers[0].reconstruct(codes.table)
    expected = np.square(vectors - coded).sum() / np.square(vectors - vectors.mean(0)).sum()
    assert report.error == pytest.approx(expected, rel=1e-4)
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain["levels"][0]["counts"] == list(report.levels[0].counts)
    assert plain["stability"]["seeds"] == 1
    assert tokenizers[0].report(vectors).to_json()["stability"] is None


@pytest.mark.parametrize("name", ["rqkmeans", "opq"])
def test_neighbours_agree_by_their_nearest_codes(name: str) -> None:
    """In the table all items differ, so at the last level of ordered codes none would agree."""
    vectors = clusters(120, 8, 10)
    tokenizer = find(name)(levels=2, size=16)
    tokenizer.fit(vectors, context=FitContext(0, "cpu"))
    codes, report = tokenizer.codes, tokenizer.report(vectors)
    assert codes is not None and codes.moved.any()
    by_hand = compare_neighbours(vectors, vectors, codes.nearest, ordered=codes.ordered)
    assert report.neighbours.agreement == by_hand.agreement
    assert report.neighbours.agreement[-1] > 0


def test_collapse_is_named() -> None:
    uneven = np.r_[np.zeros(950, int), np.arange(50) % 16]
    levels = (level_use(uneven, 256), level_use(np.arange(1_000) % 100, 256))
    table = np.zeros((1_000, 2), int)
    calm = collisions_of(
        np.arange(1_000)[:, None], np.arange(1_000)[:, None], np.zeros(1_000, bool)
    )
    told = findings_of(levels, calm, None, 1_000)
    assert told[0].startswith("Level 1 has collapsed: its 256 codes tell as much as 1.")
    assert "most frequent holds 95% of the items" in told[0]
    assert told[1] == "Level 2 has dead codes: 156 of 256 are never used."
    crowded = collisions_of(table, table, np.r_[np.ones(60, bool), np.zeros(940, bool)])
    assert "60 of 1,000 items could not keep" in findings_of((), crowded, None, 1_000)[0]
    twins = calm._replace(same_vector=50)
    assert "50 of 1,000 items have the same vector" in findings_of((), twins, None, 1_000)[0]
    unstable = Stability((0.2, 0.1), (0.05, 0.05), 2)
    assert "only 20% of the items" in findings_of((), calm, unstable, 1_000)[0]
    assert findings_of((level_use(np.arange(256), 256),), calm, None, 256) == ()


def test_a_small_catalog_is_not_called_collapsed() -> None:
    few = level_use(np.arange(10), 256)
    calm = collisions_of(np.arange(10)[:, None], np.arange(10)[:, None], np.zeros(10, bool))
    assert findings_of((few,), calm, None, 10) == ()
    # Among few codes a tenth of what could be is less than one code.
    one = level_use(np.zeros(10, int), 8)
    assert findings_of((one,), calm, None, 10)[0].startswith("Level 1 has collapsed: its 8 codes")
    uneven = level_use(np.r_[np.zeros(98, int), 1, 2], 8)
    assert "has collapsed" in findings_of((uneven,), calm, None, 100)[0]
    assert findings_of((level_use(np.zeros(10, int), 1),), calm, None, 10) == ()


def test_reports_need_codes_and_their_vectors() -> None:
    tokenizer = find("rqkmeans")(levels=2, size=4)
    with pytest.raises(InputError, match="nothing to report"):
        report_on(tokenizer, np.zeros((4, 2)))
    tokenizer.fit(clusters(12, 3, 4))
    with pytest.raises(InputError, match="5 vectors for codes of 12 items"):
        tokenizer.report(clusters(5, 3, 4))
