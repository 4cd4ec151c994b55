"""Texts as they are compared: lower case, without accents and punctuation."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import polars as pl


def folded(text: str) -> str:
    """Lower case, no accents, a blank for whatever is no letter, digit or ``_``."""
    return text.translate(_LETTERS)


def folded_series(texts: Sequence[str]) -> pl.Series:
    """``folded`` of each text, in order."""
    letters = _LETTERS
    return pl.Series([text.translate(letters) for text in texts], dtype=pl.String)


def plain(text: str) -> str:
    """Lower case and no accents; punctuation stays."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


class _Letters(dict[int, str]):
    """What becomes of a letter, made when it first comes.

    Letters can be folded one by one: the order in which NFKD puts accents depends on neighbours,
    but accents go.
    """

    def __missing__(self, number: int) -> str:
        letters = plain(chr(number))
        made = "".join(one if one.isalnum() or one == "_" else " " for one in letters)
        self[number] = made
        return made


_LETTERS = _Letters()
