"""Titles as people type them."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from foretaste.data.catalog import Catalog
from foretaste.data.titles import TitleIndex

TITLES = {
    "The Matrix (1999)": 55,
    "The Matrix Reloaded (2003)": 14,
    "The Animatrix (2003)": 3,
    "Inception (2010)": 158,
    "Pulp Fiction (1994)": 126,
    "The Lord of the Rings: The Fellowship of the Ring (2001)": 61,
    "The Lord of the Rings: The Two Towers (2002)": 48,
    "The Lord of the Rings: The Return of the King (2003)": 62,
    "Le fabuleux destin d'Amélie Poulain (2001)": 33,
    "Amelia (2009)": 3,
    "Se7en (1995)": 101,
    "Seven Pounds (2008)": 27,
    "The Godfather (1972)": 102,
    "The Godfather: Part II (1974)": 55,
    "The Godfather: Part III (1990)": 19,
    "Disco Godfather (1979)": 1,
    "Father of the Bride Part II (1995)": 1,
    "Fantômas - À l'ombre de la guillotine (1913)": 1,
    "Spider-Man (2002)": 25,
    "Spider-Man 2 (2004)": 19,
    "Heat (1995)": 44,
    "Crazy Heart (2009)": 90,
    "300 (2006)": 46,
    "Godzilla (1998)": 9,
    "Godzilla (2014)": 200,
    "Seven Samurai, The (1954)": 12,
    "Мастер и Маргарита 2": 2,
    "Himlen är oskyldigt blå (2010)": 1,
    "!!!": 1,
}


def index_of(titles: dict[str, int]) -> TitleIndex:
    ids = [str(300 + number) for number in range(len(titles))]
    known = pl.DataFrame({"item_id": ids, "title": list(titles)})
    catalog = Catalog.from_items(pl.Series(ids), known)
    return TitleIndex(catalog, np.array(list(titles.values())))


@pytest.fixture(scope="module")
def index() -> TitleIndex:
    return index_of(TITLES)


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ("The Matrix", "The Matrix (1999)"),
        ("matrix", "The Matrix (1999)"),
        ("Matrix, The", "The Matrix (1999)"),
        ("matrix 1999", "The Matrix (1999)"),
        ("teh matrix", "The Matrix (1999)"),
        ("Incption", "Inception (2010)"),
        ("pulp ficton", "Pulp Fiction (1994)"),
        (
            "Lord of the rings fellowship",
            "The Lord of the Rings: The Fellowship of the Ring (2001)",
        ),
        ("lord rings two towers", "The Lord of the Rings: The Two Towers (2002)"),
        ("Amelie", "Le fabuleux destin d'Amélie Poulain (2001)"),
        ("AMÉLIE", "Le fabuleux destin d'Amélie Poulain (2001)"),
        ("Se7en", "Se7en (1995)"),
        ("the godfather 2", "The Godfather: Part II (1974)"),
        ("godfather iii", "The Godfather: Part III (1990)"),
        ("godfather", "The Godfather (1972)"),
        ("Fantômas", "Fantômas - À l'ombre de la guillotine (1913)"),
        ("spiderman", "Spider-Man (2002)"),
        ("spider man 2", "Spider-Man 2 (2004)"),
        ("heat", "Heat (1995)"),
        ("the seven samurai", "Seven Samurai, The (1954)"),
        ("мастер и маргарита", "Мастер и Маргарита 2"),
        ("!!!", "!!!"),
    ],
)
def test_the_right_title_comes_first(index: TitleIndex, typed: str, title: str) -> None:
    assert index.find(typed)[0].title == title


@pytest.mark.parametrize(
    "typed", ["xyzzy qqq", "", "  ", "?", "asdfgh", "blah blah", "banana matrix"]
)
def test_nonsense_matches_nothing(index: TitleIndex, typed: str) -> None:
    assert index.find(typed) == []


def test_a_part_that_does_not_exist_is_not_certain(index: TitleIndex) -> None:
    best = index.find("the matrix 2")[0]
    assert best.title == "The Matrix (1999)"
    assert best.score < 90


def test_scores(index: TitleIndex) -> None:
    scores = [match.score for match in index.find("the matrix", limit=9)]
    assert scores[0] == 100
    assert scores == sorted(scores, reverse=True)
    assert all(75 <= score <= 100 for score in scores)
    assert len(index.find("the matrix", limit=2)) == 2
    assert index.find("Incption", minimum=95) == []


def test_popular_items_win_ties_and_years_decide(index: TitleIndex) -> None:
    assert [match.title for match in index.find("godzilla")] == [
        "Godzilla (2014)",
        "Godzilla (1998)",
    ]
    assert index.find("godzilla (1998)")[0].title == "Godzilla (1998)"
    assert index.find("godzilla 1998")[0].title == "Godzilla (1998)"


def test_ids_are_accepted_after_titles(index: TitleIndex) -> None:
    assert index.find(" 303 ")[0].title == "Inception (2010)"
    assert index.find("300")[0].title == "300 (2006)"
    assert index.find("300")[0].score == 100


def test_ids_stand_in_for_titles() -> None:
    index = TitleIndex(Catalog.from_items(pl.Series(["b-1", "B 1", "x"]), None))
    assert [index.find(typed)[0].item for typed in ("b-1", "B 1", "x")] == [0, 1, 2]


def test_an_empty_catalog_and_empty_titles() -> None:
    assert TitleIndex(Catalog.from_items(pl.Series([], dtype=pl.String), None)).find("a") == []
    assert index_of({"": 1, "(1999)": 1, "Up (2009)": 1}).find("up")[0].title == "Up (2009)"


def test_match_parts_what_is_found_from_what_is_not(index: TitleIndex) -> None:
    matched, unmatched = index.match(["matrix", "xyzzy qqq", "", "matrix", "Incption"])
    assert [match.typed for match in matched] == ["matrix", "matrix", "Incption"]
    assert unmatched == ["xyzzy qqq"]


def test_a_whole_title_or_id_is_told_from_a_part() -> None:
    known = pl.DataFrame({"item_id": ["a;b", "c"], "title": ["Steins;Gate (2011)", "Up"]})
    index = TitleIndex(Catalog.from_items(known["item_id"], known))
    for text in ("Steins;Gate", " steins;GATE (2011)", "up", "a;b"):
        assert index.holds(text), text
    for text in ("Steins; Gate", "Steins", "Up; Steins;Gate", "A;B", ""):
        assert not index.holds(text), text


def test_ten_thousand_titles_take_less_than_a_twentieth_of_a_second() -> None:
    rng = np.random.default_rng(0)
    letters = rng.choice(list("abcdefghijklmno"), (8_000, 6))
    words = np.array(["".join(word) for word in letters])
    titles = {
        " ".join(title) + f" {n}": n for n, title in enumerate(rng.choice(words, (10_000, 4)))
    }
    index = index_of(titles)
    index.find("warm up")
    seconds = []
    for _ in range(5):  # the best of five, as the machine may be busy
        started = time.perf_counter()
        index.find("lord of the rings fellowship")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.05
