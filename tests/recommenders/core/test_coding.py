"""From a catalog to codes, and from the folder to codes for new items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foretaste.codes.tokenizer import FitContext
from foretaste.data.catalog import Catalog
from foretaste.data.learnt_from import LearntFrom
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError, MissingExtraError
from foretaste.language import embed
from foretaste.language.sentence_model import SentenceConfig
from foretaste.recommenders.core.coding import (
    CodedCatalog,
    CodingConfig,
    code_catalog,
    codes_learnt_from,
    vectors_of,
)
from foretaste.storage import read_arrays, write_arrays

CPU = FitContext(0, "cpu")
KINDS = ("red shoe", "blue hat", "green tea", "old book")


def catalog(items: int, first: int = 0) -> Catalog:
    """Items of four kinds, each with a word of its own that nothing else has."""
    numbers = range(first, first + items)
    ids = pl.Series("item_id", [f"i{n:03}" for n in numbers])
    titles = [f"{KINDS[n % 4]} number{n % 7}" for n in numbers]
    return Catalog.from_items(ids, pl.DataFrame({"item_id": ids, "title": titles}))


def config(**other: Any) -> CodingConfig:
    values = {"tokenizer": {"kind": "rqkmeans", "levels": 3, "size": 8}}
    return CodingConfig.model_validate(values | other)


def random_vectors(items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((items, 5)).astype(np.float32)


def test_items_of_one_kind_share_their_first_code() -> None:
    coded = code_catalog(catalog(60), config(), context=CPU)
    first = coded.codes.nearest[:, 0]
    kinds = [set(first[kind::4].tolist()) for kind in range(4)]
    assert all(not one & other for one, other in zip(kinds, kinds[1:] + kinds[:1], strict=True))
    assert coded.codes.item_ids.to_list() == catalog(60).item_ids
    assert coded.seconds > 0


def test_new_items_get_codes_and_old_ones_keep_theirs(tmp_path: Path) -> None:
    coded = code_catalog(catalog(60), config(), context=CPU)
    coded.save(tmp_path / "codes")
    again = CodedCatalog.load(tmp_path / "codes", device="cpu")
    assert again.config == coded.config
    longer = again.assign(catalog(8, first=60))
    assert np.array_equal(longer.table[:60], coded.codes.table)
    assert longer.item_ids.to_list()[60:] == [f"i{n:03}" for n in range(60, 68)]
    assert longer.table.tolist() == coded.assign(catalog(8, first=60)).table.tolist()
    silent = Catalog.from_items(pl.Series("item_id", ["x", "y"]), None)
    twice = again.assign(silent, codes=longer)
    assert len(twice) == 70


def test_text_and_vectors_together(tmp_path: Path) -> None:
    vectors = random_vectors(60)
    vectors[3] = 0
    coded = code_catalog(catalog(60), config(vectors_weight=2.0), item_vectors=vectors, context=CPU)
    assert coded.scaling is not None
    text = coded.vectors.shape[1] - 5
    assert np.square(coded.vectors[:, text:]).sum(1).sum() / 59 == pytest.approx(4, rel=1e-3)
    coded.save(tmp_path / "codes")
    again = CodedCatalog.load(tmp_path / "codes", device="cpu")
    new = again.embed(catalog(2, first=60), random_vectors(2, seed=1))
    expected = coded.embed(catalog(2, first=60), random_vectors(2, seed=1))
    np.testing.assert_array_equal(new, expected)
    with pytest.raises(InputError, match="item vectors were used to fit these codes"):
        again.assign(catalog(2, first=60))


def test_vectors_alone_when_nothing_has_a_text() -> None:
    silent = Catalog.from_items(pl.Series("item_id", [f"i{n}" for n in range(30)]), None)
    coded = code_catalog(silent, config(), item_vectors=random_vectors(30), context=CPU)
    assert coded.encoder is None
    np.testing.assert_array_equal(coded.vectors, random_vectors(30))
    without = code_catalog(
        catalog(30), config(text=None), item_vectors=random_vectors(30), context=CPU
    )
    np.testing.assert_array_equal(without.vectors, random_vectors(30))
    with pytest.raises(InputError, match="item vectors were not used"):
        code_catalog(catalog(30), config(), context=CPU).embed(catalog(3), random_vectors(3))


class Lengths:
    """A model of texts that knows how long they are."""

    identity, batch_texts, max_characters = "lengths", 2, 100

    def __init__(self, config: SentenceConfig) -> None:
        del config

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        angles = np.array([len(text) / 20 for text in texts], np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], 1)


def missing(config: SentenceConfig) -> None:
    raise MissingExtraError("sentence-transformers", "text")


def test_a_model_of_texts_is_opened_when_a_text_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(embed, "SentenceModel", Lengths)
    code_catalog(catalog(60), config(text={"kind": "sentence"}), context=CPU).save(tmp_path)
    monkeypatch.setattr(embed, "SentenceModel", missing)
    coded = CodedCatalog.load(tmp_path, device="cpu")
    silent = Catalog.from_items(pl.Series("item_id", ["x", "y"]), None)
    assert len(coded.assign(silent)) == 62  # nothing to read: they lie where nothing is known
    with pytest.raises(MissingExtraError):
        coded.assign(catalog(2, first=60))
    monkeypatch.setattr(embed, "SentenceModel", Lengths)
    assert len(coded.assign(catalog(2, first=60))) == 62


def test_a_model_of_texts_that_read_none_is_not_asked_later(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(embed, "SentenceModel", missing)
    silent = Catalog.from_items(pl.Series("item_id", [f"i{n}" for n in range(30)]), None)
    plain = config(text={"kind": "sentence"})
    code_catalog(silent, plain, item_vectors=random_vectors(30), context=CPU).save(tmp_path)
    coded = CodedCatalog.load(tmp_path, device="cpu")
    assert len(coded.assign(catalog(2, first=60), random_vectors(2))) == 32


def test_histories_reach_a_tokenizer_that_uses_them() -> None:
    tokenizer = {"kind": "coba", "levels": 2, "size": 8, "dim": 4, "hidden": (8,), "steps": 5}
    with pytest.raises(InputError, match="needs training histories"):
        code_catalog(catalog(60), config(tokenizer=tokenizer), context=CPU)
    train = Sequences.from_lists([[0, 4, 8], [1, 5]])
    coded = code_catalog(catalog(60), config(tokenizer=tokenizer), sequences=train, context=CPU)
    assert coded.tokenizer.name == "coba"


def test_nothing_to_code_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to make codes of"):
        code_catalog(catalog(30), config(text=None), context=CPU)
    silent = Catalog.from_items(pl.Series("item_id", ["a", "b"]), None)
    with pytest.raises(InputError, match="no word in 2 texts"):
        code_catalog(silent, config(), context=CPU)
    with pytest.raises(InputError, match="vectors of 3 items for a catalog of 30"):
        code_catalog(catalog(30), config(), item_vectors=random_vectors(3), context=CPU)


def test_a_folder_that_was_touched_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    with pytest.raises(InputError, match="not a folder of codes"):
        CodedCatalog.load(folder)
    code_catalog(catalog(60), config(), context=CPU).save(folder)
    whole = (folder / "catalog.parquet").read_bytes()
    (folder / "catalog.parquet").write_bytes(catalog(59).to_bytes())
    with pytest.raises(InputError, match="codes of another catalog"):
        CodedCatalog.load(folder)
    (folder / "catalog.parquet").write_bytes(whole[:50])
    with pytest.raises(InputError, match=r"cannot read the catalog .* foretaste codes fit$"):
        CodedCatalog.load(folder)
    (folder / "catalog.parquet").write_bytes(whole)
    vectors = (folder / "vectors.safetensors").read_bytes()
    (folder / "vectors.safetensors").write_bytes(vectors[:-3])
    with pytest.raises(InputError, match=r"vectors.safetensors: damaged .* foretaste codes fit$"):
        CodedCatalog.load(folder)
    (folder / "vectors.safetensors").unlink()
    with pytest.raises(InputError, match=r"no such file. Make one with: foretaste codes fit$"):
        CodedCatalog.load(folder)
    (folder / "vectors.safetensors").write_bytes(vectors)
    arrays = read_arrays(folder / "vectors.safetensors")
    write_arrays(folder / "vectors.safetensors", {"vectors": arrays["vectors"][:5]})
    with pytest.raises(InputError, match="vectors of 5 items"):
        CodedCatalog.load(folder)
    (folder / "coding.json").write_text("{}")
    with pytest.raises(InputError, match="not a folder of codes"):
        CodedCatalog.load(folder)


def test_a_folder_that_lacks_an_array_is_refused(tmp_path: Path) -> None:
    code_catalog(catalog(60), config(), item_vectors=random_vectors(60), context=CPU).save(tmp_path)
    path = tmp_path / "vectors.safetensors"
    arrays = read_arrays(path)
    assert {"vectors", "scales", "mean.0", "mean.1", "text.terms"} < arrays.keys()
    for part in arrays.keys() - {"scales"}:
        write_arrays(path, {name: one for name, one in arrays.items() if name != part})
        with pytest.raises(InputError, match=r"(foretaste codes fit|Fit the codes again\.)$"):
            CodedCatalog.load(tmp_path)


def test_codes_of_items_with_other_titles_are_refused() -> None:
    coded = code_catalog(catalog(60), config(), context=CPU)
    part = catalog(20, first=30)
    codes = coded.codes_for(part, "books")
    assert codes.item_ids.to_list() == part.item_ids
    np.testing.assert_array_equal(codes.table, coded.codes.table[30:50])
    untitled = Catalog.from_items(part.frame["item_id"], None)
    np.testing.assert_array_equal(coded.codes_for(untitled, "books").table, codes.table)
    titles = ["blue hat" if n == 33 else f"film {n}" if n > 47 else None for n in range(30, 50)]
    films = Catalog.from_items(
        part.frame["item_id"], part.frame.select("item_id", title=pl.Series(titles))
    )
    with pytest.raises(InputError, match=r'books: .*"i033" is "blue hat.*" there') as told:
        coded.codes_for(films, "books")
    assert 'and "blue hat" here, and 2 more differ' in str(told.value)


def test_item_vectors_of_trained_models(cyclic: Split) -> None:
    from foretaste.recommenders.popularity import Popularity
    from foretaste.recommenders.sasrec import SASRec

    asked = cyclic.catalog.take(np.array([3, 0, 11]))
    stranger = Catalog.from_items(pl.Series("item_id", ["x"]), None)
    both = Catalog(pl.concat([asked.frame, stranger.frame]))
    model = SASRec(dim=8, train={"epochs": 1})
    model.fit(cyclic)
    vectors = vectors_of(model, both)
    own = model.network.catalog().detach().numpy()
    np.testing.assert_array_equal(vectors[:3], own[[3, 0, 11]])
    assert not vectors[3].any()
    with pytest.raises(InputError, match="the run knows none of the 1 items"):
        vectors_of(model, stranger)
    plain = Popularity()
    plain.fit(cyclic)
    with pytest.raises(InputError, match="popularity: has no item vectors"):
        vectors_of(plain, asked)


COBA = {"kind": "coba", "levels": 2, "size": 8, "dim": 4, "hidden": (8,), "steps": 5}


def test_a_folder_tells_what_its_codes_were_learnt_from(ordinary: Split, tmp_path: Path) -> None:
    own = LearntFrom.of("co-occurrence", ordinary.catalog, ordinary.train)
    run = LearntFrom.of("item vectors of runs/a", ordinary.catalog, ordinary.train)
    code_catalog(
        ordinary.catalog,
        config(text=None, tokenizer=COBA),
        item_vectors=random_vectors(30),
        vectors_from=run,
        sequences=ordinary.train,
        context=CPU,
    ).save(tmp_path)
    coded = CodedCatalog.load_for(ordinary, tmp_path)
    assert coded.learnt_from == codes_learnt_from(tmp_path) == (run, own)
    assert coded.warnings == ()
    texts = code_catalog(catalog(60), config(), sequences=ordinary.train, context=CPU)
    assert texts.learnt_from == ()  # TF-IDF and k-means read no histories


def test_codes_that_may_know_the_answers_are_refused(ordinary: Split, tmp_path: Path) -> None:
    """The histories of the test hold what train leaves for validation."""
    code_catalog(
        ordinary.catalog,
        config(text=None, tokenizer=COBA),
        item_vectors=random_vectors(30),
        sequences=ordinary.test.histories,
        context=CPU,
    ).save(tmp_path / "codes")
    with pytest.raises(InputError) as told:
        CodedCatalog.load_for(ordinary, tmp_path / "codes")
    events, train = ordinary.test.histories.events, ordinary.train.events
    assert str(told.value).startswith(
        f"{tmp_path / 'codes'}: codes hold co-occurrence, learnt from {events} interactions that "
        f"are not the {train} of this split's train"
    )
    assert "foretaste codes fit --data ... --split leave-last-out" in str(told.value)
    assert "leave out model.codes_from" in str(told.value)
    CodedCatalog.load(tmp_path / "codes")  # without an experiment there is nothing to leak


@pytest.mark.parametrize(
    ("settings", "given", "unknown"),
    [
        ({}, False, []),
        ({}, True, ["item vectors"]),
        ({"text": None}, True, ["item vectors"]),
        ({"text": None, "tokenizer": COBA}, True, ["item vectors", "co-occurrence"]),
    ],
)
def test_codes_of_an_earlier_version_are_warned_of(
    ordinary: Split, tmp_path: Path, settings: dict[str, Any], given: bool, unknown: list[str]
) -> None:
    ids = ordinary.catalog.frame["item_id"]
    titled = Catalog.from_items(ids, catalog(30).frame.with_columns(item_id=ids))
    code_catalog(
        titled,
        config(**settings),
        item_vectors=random_vectors(30) if given else None,
        sequences=ordinary.train,
        context=CPU,
    ).save(tmp_path)
    about = json.loads((tmp_path / "coding.json").read_text())
    del about["learnt_from"]  # as it was before anything was recorded
    (tmp_path / "coding.json").write_text(json.dumps(about))
    coded = CodedCatalog.load_for(ordinary, tmp_path)
    assert coded.learnt_from == tuple(LearntFrom(what) for what in unknown)
    assert codes_learnt_from(tmp_path) == coded.learnt_from
    assert [what in told for what, told in zip(unknown, coded.warnings, strict=True)] == [
        True
    ] * len(unknown)
    assert all(f"{tmp_path}: codes hold" in told for told in coded.findings[: len(unknown)])
