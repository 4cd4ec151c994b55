"""What all generators do with codes, beams, candidates and long lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from foretaste.codes.rqkmeans import RQKMeansConfig
from foretaste.codes.tokenizer import FitContext
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.recommenders.core import spreading
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.coding import CodedCatalog, CodingConfig, code_catalog
from foretaste.recommenders.core.collaborative import collaborative_vectors
from foretaste.recommenders.core.generator import Generator, source_of
from foretaste.recommenders.core.search_check import SearchCheck
from foretaste.recommenders.core.spreading import within

from .generators import TRAIN, fitted, generator
from .killing import Killed, KilledAfter

NAMES = ["tiger", "mdgr", "s2gr"]
every = pytest.mark.parametrize("name", NAMES)


def scores_of(model, histories, **wanted) -> np.ndarray:
    found = np.empty((len(histories), len(model.popularity)), np.float32)
    for rows, block in model.scores(histories, **wanted):
        found[rows] = block.numpy()
    return found


@every
@pytest.mark.parametrize("reads", ["codes", "items"])
def test_what_a_search_did_not_find_follows_by_popularity(name: str, reads: str, ordinary: Split):
    model = fitted(name, ordinary, reads=reads, beams=4)
    histories = ordinary.test.histories.take(np.arange(10))
    for row, found in enumerate(scores_of(model, histories, exclude="none")):
        order = np.argsort(-found, kind="stable")
        # Two stages find all items that agree with a beam, which may be more than beams.
        rest = order[4:] if name != "mdgr" else order[found[order] < found.min() + 1]
        assert (np.diff(model.popularity[rest]) <= 0).all(), row


def test_the_catalog_is_sorted_by_popularity_once(ordinary: Split, monkeypatch: pytest.MonkeyPatch):
    model, sorted_ = fitted("tiger", ordinary, beams=4), []
    by_popularity = spreading.by_popularity
    monkeypatch.setattr(
        "foretaste.recommenders.core.generator.by_popularity",
        lambda counts: sorted_.append(counts) or by_popularity(counts),
    )
    model._popular = None
    for _ in range(3):
        model.recommend([["i0000", "i0005"]], 30)
    assert len(sorted_) == 1 and sorted_[0] is model.popularity
    rest = by_popularity(model.popularity)
    model._set_arrays(model._arrays())
    model.popularity = model.popularity[::-1].copy()
    assert not torch.equal(model._rest, rest)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("tiger", {}),
        ("s2gr", {}),
        *(("mdgr", {"warm_up": filled, "warm_beams": 1}) for filled in range(5)),
    ],
)
def test_seen_items_take_no_room_in_a_beam(name: str, own: dict, ordinary: Split):
    model = fitted(name, ordinary, beams=3, **own)
    # A beam from left to right may still be too narrow.
    for history in ordinary.test.histories.take(np.arange(30 if name == "mdgr" else 1)):
        asked = Sequences.from_lists([history.tolist()])
        found = model.recommend(asked, 3).items[0].tolist()
        assert not set(found) & set(history.tolist())
        # Found, not filled up by popularity.
        (_, searched), *_ = model._asking(asked, 3, within(asked, np.arange(30), 30))
        with torch.no_grad():
            items = model._search(searched, model._searched(None)[0]).items[0]
        assert items[:3].tolist() == found


@pytest.mark.parametrize("own", [{}, {"architecture": "decoder-only"}, {"normalise": "codes"}])
def test_the_extra_level_may_have_fewer_codes(own: dict, ordinary: Split):
    """As in TIGER's paper: of a level that tells equal codes apart few are needed."""
    extra = CodingConfig(tokenizer=RQKMeansConfig(size=6, unique="extra"))
    made = fitted("tiger", ordinary, codes=extra, **own)
    assert made.codes.sizes[-1] < 6
    assert len(made.recommend([["i0001"]], 3)[0]) == 3


@every
def test_candidates_that_are_all_seen(name: str, ordinary: Split):
    """Of one history nothing is left to be searched, of the other two items are."""
    model = fitted(name, ordinary, beams=3, **({"warm_up": 2} if name == "mdgr" else {}))
    histories, some = [["i0001", "i0004"], ["i0009"]], ["i0001", "i0004"]
    both = model.recommend(histories, 2, candidates=some).items
    assert (both[0] < 0).all() and sorted(both[1].tolist()) == [1, 4]
    assert (model.recommend(histories[:1], 2, candidates=some).items < 0).all()


@every
def test_candidates_are_searched_among(name: str, ordinary: Split):
    """All candidates get the scores that a search of everything gives them."""
    model = fitted(name, ordinary, beams=30)
    histories = ordinary.test.histories.take(np.arange(6))
    allowed = np.zeros(ordinary.items, bool)
    allowed[[1, 4, 9, 20]] = True
    some = scores_of(model, histories, exclude="none", allowed=allowed)
    assert np.isneginf(some[:, ~allowed]).all() and np.isfinite(some[:, allowed]).all()
    if name == "tiger":  # with all paths followed the search is exact, among all or among few
        every_item = scores_of(model, histories, exclude="none")
        np.testing.assert_allclose(some[:, allowed], every_item[:, allowed], atol=1e-4)


@every
def test_longer_lists_widen_the_search(name: str, ordinary: Split):
    model = fitted(name, ordinary, beams=2)
    history = Sequences.from_lists([[0, 5, 3]])
    short, long = (scores_of(model, history, exclude="none", depth=d)[0] for d in (2, 30))
    assert sorted(long) != sorted(short)
    best = long.argmax()
    assert short[best] <= long[best] + 1e-4


def coded_by(name: str, split: Split, seed: int = 0) -> CodedCatalog:
    """Codes as a generator makes them, of who chose what in train."""
    vectors = collaborative_vectors(split.train, split.items, 8, 0)
    coding = CodingConfig(tokenizer=generator(name).config.codes.tokenizer, text=None)
    return code_catalog(
        split.catalog, coding, item_vectors=vectors, context=FitContext(seed, "cpu")
    )


@every
def test_a_resumed_run_is_the_uninterrupted_one(name: str, ordinary: Split, tmp_path: Path):
    train = TRAIN | {"epochs": 4, "schedule": "cosine"}
    straight, cut, resumed = (generator(name, train=train, dropout=0.3) for _ in range(3))
    expected = straight.fit(ordinary, RunContext(seed=5))
    with pytest.raises(Killed):
        cut.fit(ordinary, RunContext(seed=5, folder=tmp_path, progress=KilledAfter(2)))
    torch.manual_seed(999)  # another process starts from another state
    report = resumed.fit(ordinary, RunContext(seed=5, folder=tmp_path))
    assert [one[:3] + one[4:] for one in report.epochs] == [
        one[:3] + one[4:] for one in expected.epochs
    ]
    ours, theirs = resumed._arrays(), straight._arrays()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_training_goes_on_with_the_codes_that_it_made(ordinary: Split, tmp_path: Path, monkeypatch):
    """Another machine may make others of the same seed: its rounding is another."""
    run = RunContext(folder=tmp_path)
    with pytest.raises(Killed):
        generator("s2gr").fit(ordinary, replace(run, progress=KilledAfter(1)))
    straight = generator("s2gr")
    straight.fit(ordinary)
    made = Generator._coded
    monkeypatch.setattr(
        Generator, "_coded", lambda self, split, run: made(self, split, replace(run, seed=9))
    )
    resumed = generator("s2gr")
    resumed.fit(ordinary, run)
    ours, theirs = resumed._arrays(), straight._arrays()
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    with pytest.raises(InputError, match="training began with other codes"):
        generator("s2gr", size=5).fit(ordinary, run)


def test_training_does_not_go_on_with_other_codes(ordinary: Split, tmp_path: Path):
    codes, run = tmp_path / "codes", RunContext(folder=tmp_path / "run")
    coded_by("tiger", ordinary).save(codes)
    generator("tiger", codes_from=codes).fit(ordinary, run)
    generator("tiger", codes_from=codes).fit(ordinary, run)  # the same codes
    coded_by("tiger", ordinary, seed=1).save(codes)
    with pytest.raises(InputError, match="run: training began with other codes"):
        generator("tiger", codes_from=codes).fit(ordinary, run)


@every
def test_given_codes_are_used(name: str, ordinary: Split, tmp_path: Path):
    coded = coded_by(name, ordinary)
    coded.save(tmp_path / "codes")
    model = generator(name, codes_from=tmp_path / "codes")
    model.fit(ordinary, RunContext(seed=1))
    np.testing.assert_array_equal(model.codes.table, coded.codes.table)
    with pytest.raises(InputError, match="not a folder of codes"):
        generator(name, codes_from=tmp_path / "none").fit(ordinary)


@every
def test_collapsed_codes_are_named_by_training(name: str, ordinary: Split, tmp_path: Path):
    """Of items that are nearly all the same one code holds most."""
    vectors = np.zeros((ordinary.items, 8), np.float32)
    vectors[0] = 1
    coding = CodingConfig(tokenizer=generator(name).config.codes.tokenizer, text=None)
    code_catalog(ordinary.catalog, coding, item_vectors=vectors).save(tmp_path / "codes")
    report = generator(name, codes_from=tmp_path / "codes").fit(ordinary)
    assert any("Level 1 has collapsed: its 6 codes" in note for note in report.notes)
    made = generator(name, source="collaborative").fit(ordinary).notes  # by themselves
    assert not any("collapsed" in note for note in made)


@every
def test_a_fit_tells_what_its_search_is_worth(name: str, ordinary: Split):
    model = generator(name, beams=4)
    report = model.fit(ordinary, RunContext(seed=1))
    check = SearchCheck(**report.details["search"])
    assert (check.queries, check.results, check.illegal) == (20, 200, 0)
    assert check.exact_queries == 20 and check.best_found is not None and check.best_found > 0.3
    assert str(check).startswith("Illegal results: 0 of 200, for 20 queries. Of the exact best 10 ")
    assert report.notes[-1] == str(check)
    wide = fitted(name, ordinary, beams=30).check_search(ordinary.valid.histories)
    assert wide.best_found == 1 and wide.results == 2_400


@every
def test_results_that_are_not_what_was_written_are_counted(name: str, ordinary: Split):
    """The table of codes is what they are held against, not the index that was searched."""
    model = fitted(name, ordinary)
    moved = np.roll(model.codes.table, 1, axis=0)
    model._indexed = model._index(moved)
    check = model.check_search(ordinary.valid.histories)
    # MDGR writes one slot before the rest: neighbours may have the same code there.
    assert check.illegal is not None
    assert check.illegal == check.results if name != "mdgr" else check.illegal > 400


def test_where_all_items_are_scored_nothing_is_written(ordinary: Split):
    model = fitted("mdgr", ordinary, warm_up=0)
    check = model.check_search(ordinary.valid.histories)
    assert check.illegal is None and check.results > 0 and check.best_found == 1
    assert str(check).startswith("No code is written: all items are scored (80 queries). Of the ")


def test_the_share_of_the_exact_best_is_that_of_likelihoods(ordinary: Split):
    model = fitted("tiger", ordinary, beams=1)
    histories = ordinary.valid.histories.take(np.arange(6))
    found = model.recommend(histories, 10, exclude="none").items
    shares = []
    for history, list_ in zip(histories, found, strict=True):
        items = torch.from_numpy(history[-10:].astype(np.int64)).repeat(30, 1)
        with torch.no_grad():
            likely = model.network.likelihood(
                items, torch.full((30,), items.shape[1]), torch.arange(30)
            )
        shares.append(len({*likely.topk(10).indices.tolist()} & {*list_.tolist()}) / 10)
    assert model.check_search(histories).best_found == pytest.approx(np.mean(shares))
    assert np.mean(shares) < 1


def test_codes_of_another_catalog_are_said(ordinary: Split, cyclic: Split, tmp_path: Path):
    coded_by("tiger", cyclic).save(tmp_path / "codes")
    with pytest.raises(InputError, match="have no codes"):
        generator("tiger", codes_from=tmp_path / "codes").fit(ordinary)


@every
def test_more_codes_than_items_are_said(name: str, ordinary: Split):
    way = r"Lower model\.codes\.tokenizer\.size\.$"
    with pytest.raises(InputError, match=f"30 items are fewer than the 64 codes of a level. {way}"):
        generator(name, size=64).fit(ordinary)


@every
def test_what_is_not_compiled_is_said(name: str, cyclic: Split):
    with pytest.raises(InputError, match=f"{name}: run.compile = true: .* not compiled. Leave"):
        generator(name).fit(cyclic, RunContext(compile=True))


@every
def test_a_beam_beyond_the_catalog_is_said(name: str, cyclic: Split):
    with pytest.raises(InputError, match=f"{name}: beams = 13 is more than the catalog's 12 items"):
        generator(name, beams=13).fit(cyclic)
    assert len(fitted(name, cyclic, beams=30).recommend([["i0001"]], 5)[0]) == 5  # the default


@every
def test_heads_must_divide(name: str):
    with pytest.raises(InputError, match="dim = 10 must be a multiple of heads = 4"):
        generator(name, dim=10, heads=4)


def test_text_that_is_not_there_is_said(ordinary: Split):
    with pytest.raises(InputError):
        generator("tiger", source="text").fit(ordinary)


def test_collaborative_vectors_know_who_goes_with_whom(checkerboard: Split):
    vectors = collaborative_vectors(checkerboard.train, checkerboard.items, 4, 0)
    assert vectors.shape == (20, 4) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    cosine = vectors @ vectors.T
    same = np.arange(20)[:, None] // 10 == np.arange(20) // 10
    assert cosine[same].min() > cosine[~same].max()
    again = collaborative_vectors(checkerboard.train, checkerboard.items, 4, 0)
    np.testing.assert_array_equal(vectors, again)


def test_collaborative_vectors_of_few_and_of_unseen_items():
    train = Sequences.from_lists([[0, 1], [1, 2]])
    vectors = collaborative_vectors(train, 5, 64, 0)
    assert vectors.shape[0] == 5 and np.isfinite(vectors).all()
    assert not vectors[3:].any() and vectors[:3].any(axis=1).all()


def test_smoothing_is_of_the_codes_of_a_level(ordinary: Split):
    with pytest.raises(InputError, match='set normalise = "codes"'):
        generator("tiger", smoothing=0.1)
    smoothed = fitted("tiger", ordinary, smoothing=0.1, normalise="codes")
    histories = ordinary.test.histories
    assert np.isfinite(scores_of(smoothed, histories, exclude="none")).all()


@every
def test_candidates_do_not_change_scores(name: str, ordinary: Split):
    """Probabilities are over the whole catalog, whatever part of it is searched."""
    model = fitted(name, ordinary, beams=30)
    history, some = [["i0001", "i0004"]], [f"i{item:04}" for item in range(0, 30, 2)]
    whole = model.recommend(history, 30, exclude="none")
    part = model.recommend(history, 15, exclude="none", candidates=some)
    score = dict(zip(whole.items[0].tolist(), whole.scores[0].tolist(), strict=True))
    for item, found in zip(part.items[0].tolist(), part.scores[0].tolist(), strict=True):
        assert found == pytest.approx(score[item], abs=1e-3)


def test_titles_without_a_word_are_left_out(ordinary: Split):
    """As exports write what is not known."""
    frame = ordinary.catalog.frame.with_columns(title=pl.lit("-"))
    untold = replace(ordinary, catalog=replace(ordinary.catalog, frame=frame))
    for source in ("auto", "both"):
        model = fitted("tiger", untold, source=source, codes={"tokenizer": {"size": 6}})
        assert model.config.codes.text is not None
        np.testing.assert_array_equal(
            model.codes.table, fitted("tiger", ordinary, source="collaborative").codes.table
        )
    with pytest.raises(InputError, match="no word in 30 texts"):
        generator("tiger", source="text").fit(untold)


@pytest.mark.parametrize(
    ("titles", "texts", "source"),
    [
        (["Up", "Heat", None], [None] * 3, "both"),  # films, told in a word or two
        (["A pack of ten blue pens", None, None], [None, "ink", None], "both"),  # 6 and 1
        (["A pack of ten blue pens", None], ["with caps", "five more words of text"], "text"),
        ([None, " ", "Up"], [None, "", None], "collaborative"),  # most are told in nothing
        (["-", "- - - - - -", "..."], [None, "/ & /", ""], "collaborative"),  # no word at all
        (["Up - - - - -", "Heat", None], [None] * 3, "both"),
        ([], [], "both"),
    ],
)
def test_codes_are_of_text_alone_where_items_are_told_in_many_words(titles, texts, source):
    schema = {"title": pl.String, "text": pl.String}
    assert source_of(pl.DataFrame({"title": titles, "text": texts}, schema)) == source
