"""A catalog with titles, and models whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.language.views.local_model import Question
from foretaste.language.views.views import Request

TITLES = [
    "Red Garden Chair (2001)",
    "Red Garden Table (2002)",
    "Red Garden Bench (2003)",
    "Blue Kitchen Knife (2004)",
    "Blue Kitchen Spoon (2005)",
    "Blue Kitchen Fork (2006)",
    "Green Office Lamp (2007)",
    "Green Office Desk (2008)",
    "Green Office Stool (2009)",
    "Amelie (2001)",
]


def catalog(titles: Sequence[str] = TITLES) -> Catalog:
    known = pl.DataFrame(
        {"item_id": [str(100 + number) for number in range(len(titles))], "title": list(titles)}
    )
    return Catalog.from_items(known["item_id"], known)


def request(*histories: list[int], seed: int = 5) -> Request:
    seeds = np.arange(len(histories), dtype=np.uint64) + np.uint64(seed)
    return Request(Sequences.from_lists(histories), seeds)


class Scripted:
    """A chat model that answers with a function of the prompt, and remembers what it was asked."""

    identity = "scripted"

    def __init__(self, answer: Callable[[str], str], batch: int = 4) -> None:
        self.answer, self.batch = answer, batch
        self.asked: list[list[str]] = []

    def answers(self, prompts: Sequence[str]) -> list[str]:
        self.asked.append(list(prompts))
        return [self.answer(prompt) for prompt in prompts]


class Taste:
    """A judge that finds a text likely when it shares a word with the context."""

    identity, batch = "taste", 4

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def log_probabilities(self, questions: Sequence[Question]) -> list[np.ndarray]:
        self.asked += questions
        found = []
        for context, continuations in questions:
            words = set(context.lower().replace(";", " ").replace(":", " ").split())
            shared = [len(words & set(text.lower().split())) for text in continuations]
            found.append(-5.0 + np.array(shared, float))
        return found
