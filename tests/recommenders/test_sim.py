"""SIM: finds what it should, and is DIN when it may find everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError
from foretaste.recommenders.core.ranker_network import History
from foretaste.recommenders.din import DINConfig, DINNetwork
from foretaste.recommenders.sim import SIM, SIMConfig, SIMNetwork

SMALL: dict[str, Any] = {"dim": 8, "hidden": 8, "max_length": 30}


def network(categories: np.ndarray | None = None, **parameters) -> SIMNetwork:
    torch.manual_seed(0)
    made = SIMNetwork(12, 3, SIMConfig(**{**SMALL, **parameters}), categories)
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made.eval()


def history(length: int = 20, rows: int = 4) -> History:
    generator = torch.Generator().manual_seed(1)
    return History(
        torch.randint(12, (rows, length), generator=generator),
        torch.randint(4, (rows, length), generator=generator),
        torch.tensor([length, 1, 0, length // 2])[:rows],
    )


@torch.no_grad()
def test_finding_everything_is_din():
    sim = network(found=20)
    din = DINNetwork(12, 3, DINConfig(**SMALL)).eval()
    din.load_state_dict(sim.state_dict())
    asked, candidates = history(), torch.randint(12, (4, 5))
    ends = asked.lengths[:, None]
    torch.testing.assert_close(sim(asked, candidates, ends), din(asked, candidates, ends))
    few = network(found=19)
    assert (few(asked, candidates, ends) - din(asked, candidates, ends)).abs().max() > 1e-6


@torch.no_grad()
def test_soft_search_keeps_the_best_by_hand():
    made = network(found=3)
    asked = history(rows=1)
    query, ends = torch.randn(1, 2, 4, 4), torch.tensor([[20, 20, 8, 2]])
    memory = made.remember(asked)
    weights = made.weigh(memory, query, ends, torch.zeros(1, 4, dtype=torch.int64))
    scores = made.attend(memory, query, ends).sum(1)[0]  # [C, n], over both heads
    for candidate, end in enumerate(ends[0].tolist()):
        best = np.argsort(-scores[candidate, :end].numpy())[:3]
        kept = np.flatnonzero(weights[0, 0, candidate])
        assert set(kept) == set(best)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 4))


@torch.no_grad()
def test_hard_search_keeps_the_last_of_the_category():
    categories = np.append(np.arange(12) % 3 + 1, 0)
    categories[5] = 0
    made = network(categories, found=2)
    items = torch.tensor([[0, 3, 1, 6, 4, 9, 5, 2]])  # categories 1 1 2 1 2 1 0 3
    asked = History(items, None, torch.tensor([8]))
    candidates = torch.tensor([[0, 7, 11, 5, 12]])  # categories 1 2 3 0 0
    weights = made.weigh(
        made.remember(asked), torch.randn(1, 2, 5, 4), torch.tensor([[8]]), candidates
    )
    kept = [np.flatnonzero(weights[0, 0, c]).tolist() for c in range(5)]
    assert kept == [[3, 5], [2, 4], [7], [], []]
    # What may be seen comes before what is found.
    weights = made.weigh(
        made.remember(asked), torch.randn(1, 2, 1, 4), torch.tensor([[3]]), candidates[:, :1]
    )
    assert np.flatnonzero(weights[0, 0, 0]).tolist() == [0, 1]


def catalog(categories: list[list[str] | None]) -> Catalog:
    ids = pl.Series([f"i{n}" for n in range(len(categories))])
    known = pl.DataFrame(
        {"item_id": ids, "categories": categories},
        schema={"item_id": pl.String, "categories": pl.List(pl.String)},
    )
    return Catalog.from_items(ids, known)


def test_categories_are_the_first_that_are_named():
    model = SIM(search="hard")
    model.catalog = catalog([["War", "Drama"], ["Comedy"], None, ["War"], []])
    numbers = model._categories()
    assert numbers.tolist() == [2, 1, 0, 2, 0, 0]  # the last is the unknown item


def test_hard_search_is_another_model_with_other_categories():
    found = set()
    for second in ("Comedy", "War"):
        for search in ("hard", "soft"):
            model = SIM(search=search)
            model.catalog = catalog([["War"], [second]])
            torch.manual_seed(0)
            model.network = model._network(2, 0)
            model.popularity = np.ones(2, np.float32)
            found.add((search, model.fingerprint))
    assert sorted(search for search, _ in found) == ["hard", "hard", "soft"]


def test_a_record_holds_its_category():
    plain, hard = network(), network(np.arange(13) % 4)
    assert hard.record_bytes == plain.record_bytes + 4  # floats must begin at multiples of four
    small = {"attention": "collective", "collective": {"user_dim": 2, "pool_size": 9}}
    assert network(np.arange(13) % 4, **small).record_bytes == 2 * 2 + 2 + 2


def test_hard_search_without_categories_is_said():
    model = SIM(search="hard")
    model.catalog = catalog([None, None])
    with pytest.raises(InputError, match=r'needs categories.*search = "soft"'):
        model._network(2, 0)
