"""What a language model is asked, and how its answer is read: lines that may be titles."""

from __future__ import annotations

import re
from collections.abc import Sequence

from foretaste.data.titles import YEAR

LONGEST_TITLE = 120
"""Characters of a title that are shown to the model."""
LONGEST_ANSWER = 4_000
"""Characters of an answer that are read."""
MOST_LINES = 20

_NUMBER = re.compile(r"^\s*(?:[#*>\-\u2022]+\s*)*\(?(\d{1,2})\s*[.):\]]\s*(.*)$")
_BULLET = re.compile(r"^\s*[#*>\-\u2022]+\s*(.*)$")
_AFTER = re.compile(r"\s+(?:[-\u2013\u2014]|by|because|:)\s+.*$")
_HARMLESS = str.maketrans("<>[]", "\u2039\u203a()")
"""Tokens of chats are in such brackets: ``<|im_end|>``, ``</s>``, ``<<SYS>>``, ``[INST]``."""

_QUOTES = "\"'`*_\u201c\u201d\u2018\u2019 \t"


def shown(title: str) -> str:
    """A title as it stands in a prompt: one line, cut, without its year or a token of the chat.

    A title is data of strangers. It can still say "ignore all instructions"; what the model then
    answers is matched with the catalog like any other answer, and can be nothing but items.
    """
    plain = "".join(letter if letter.isprintable() else " " for letter in title)
    plain = YEAR.sub("", plain) or plain
    return " ".join(plain.translate(_HARMLESS).split())[:LONGEST_TITLE]


def numbered(titles: Sequence[str]) -> str:
    """A title a line, numbered from 1."""
    return "\n".join(f"{place}. {shown(title)}" for place, title in enumerate(titles, 1))


def future(titles: Sequence[str], things: str, count: int) -> str:
    """What may come next."""
    return (
        f"Name {count} other {things} that a person who chose {_joined(titles)} would choose next. "
        "Answer with a numbered list of titles and nothing else."
    )


def rephrasing(titles: Sequence[str], things: str) -> str:
    """Something like each title."""
    return (
        f"Here is a numbered list of {things}:\n{numbered(titles)}\n"
        f"For each number name one other title among {things} that is very similar. "
        "Answer with a numbered list of titles in the same order and nothing else."
    )


def counterfactual(titles: Sequence[str], things: str, count: int) -> str:
    """What a person of the opposite taste chooses."""
    return (
        f"A person chose {_joined(titles)}. Name {count} {things} of entirely different kinds, for "
        "a person of the opposite taste. Answer with a numbered list of titles and nothing else."
    )


def _joined(titles: Sequence[str]) -> str:
    """In one line: a small model answers a numbered list with the same numbered list."""
    return "; ".join(shown(title) for title in titles)


def listed(answer: str) -> list[tuple[int | None, str]]:
    """Number (None without one) and text of every line that may be a title.

    A line that has no number counts only when no line has one: the others are talk.
    """
    found: list[tuple[int | None, str]] = []
    for line in answer[:LONGEST_ANSWER].splitlines()[: 4 * MOST_LINES]:
        match = _NUMBER.match(line)
        if match:
            found.append((int(match[1]), _title(match[2])))
            continue
        bullet = _BULLET.match(line)
        found.append((None, _title(bullet[1] if bullet else line)))
    found = [(number, text) for number, text in found if text]
    with_number = [one for one in found if one[0] is not None]
    return (with_number or found)[:MOST_LINES]


def _title(text: str) -> str:
    """Without quotes, and without what is said about the title after a dash."""
    text = " ".join(text.split()).strip(_QUOTES)
    short = _AFTER.sub("", text).strip(_QUOTES)
    return (short or text)[:LONGEST_TITLE].strip(_QUOTES + ".,;")
