"""Titles are found while they are being typed, and mistyped."""

from __future__ import annotations

import numpy as np
import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.serving.searching import TitleSearch

TITLES = {
    "m1": "Inception (2010)",
    "m2": "The Matrix (1999)",
    "m3": "Matrix Reloaded, The (2003)",
    "m4": "Amélie (2001)",
    "m5": "Star Wars: Episode IV - A New Hope (1977)",
    "m6": "Star Trek (2009)",
    "m7": None,
}
POPULARITY = np.array([5, 9, 3, 2, 8, 4, 1])


def found(typed: str, limit: int = 3) -> list[str]:
    ids = pl.Series(list(TITLES))
    known = pl.DataFrame({"item_id": ids, "title": list(TITLES.values())})
    search = TitleSearch(Catalog.from_items(ids, known), POPULARITY)
    matches = search.find(typed, limit)
    assert [match.score for match in matches] == sorted(
        (match.score for match in matches), reverse=True
    )
    return [ids[match.item] for match in matches]


def test_a_query_of_many_words_is_looked_for_by_the_first_of_them(monkeypatch):
    assert found("matrix " * 30) == ["m2", "m3"]  # one word
    words = " ".join(f"w{number}" for number in range(90))
    assert found("matrix " + words) == found("matrix " + words + " star trek")
    assert found(words + " matrix") == []


def test_a_title_half_typed():
    assert found("incep") == ["m1"]
    assert found("matr") == ["m2", "m3"]  # the more popular first
    assert found("Rel mat") == ["m3"]
    assert set(found("star")) == {"m5", "m6"}
    assert found("star t") == ["m6"]
    assert found("ame") == ["m4"]


def test_a_title_mistyped():
    assert found("Incepton")[0] == "m1"
    assert found("the matirx")[0] == "m2"


def test_ids_and_titles_that_are_ids():
    assert found("m7") == ["m7"]
    assert found("m1") == ["m1"]


def test_nothing_and_nonsense():
    for typed in ("", " ", "...", "qqqqqq", "\0", "(.*", "\\"):
        assert found(typed) == []
    assert found("a", limit=1) != []


def test_no_more_than_asked_for():
    assert len(found("star", limit=1)) == 1
