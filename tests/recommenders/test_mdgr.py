"""MDGR: masks, the two stages, and what they must equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.codes.opq import OPQConfig
from foretaste.codes.parallel import FREE, SlotIndex
from foretaste.data.batches import training_batches
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.coding import CodingConfig
from foretaste.recommenders.core.generator import CodeLoss, Generator
from foretaste.recommenders.mdgr import MDGR, Beams, Begun, MDGRNetwork

from .generators import fitted, generator

HISTORY = (0, 5, 3)


def parts(model, history: Sequence[int] = HISTORY) -> tuple[MDGRNetwork, Begun, SlotIndex]:
    network = model.network
    assert isinstance(network, MDGRNetwork)
    items, lengths = torch.tensor([history]), torch.tensor([len(history)])
    begun = Begun(*network.memory_of_last(network.read(items), lengths))
    return network, begun, SlotIndex.from_table(model.codes.table, max(model.codes.sizes))


@pytest.fixture(scope="module", params=["codes", "catalog"])
def model(ordinary: Split, request: pytest.FixtureRequest) -> MDGR:
    made = fitted("mdgr", ordinary, beams=30, normalise=request.param)
    assert isinstance(made, MDGR)
    return made


def searched(model: MDGR, warm_up: int, beams: int = 30) -> dict[int, float]:
    """Log-probabilities of what is found, by item."""
    wide = {"warm_up": warm_up, "beams": beams, "warm_beams": beams}
    model.config = model.config.model_copy(update=wide)
    found = model.recommend([[f"i{item:04}" for item in HISTORY]], beams, exclude="none")
    return dict(zip(found.items[0].tolist(), found.scores[0].tolist(), strict=True))


@torch.no_grad()
def said_by_hand(
    model: MDGR, fixed: list[int], history: Sequence[int] = HISTORY
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities, by loops: of every slot's codes ``[L, K]``, and of every item ``[30]``.

    ``fixed`` are the codes of a text, ``FREE`` where none is.
    """
    network, begun, _ = parts(model, history)
    logits = network.say(torch.tensor([fixed]), torch.tensor([0]), begun).logits[0]
    table, slots = model.codes.table, range(len(fixed))
    free = [slot for slot in slots if fixed[slot] == FREE]
    scores = np.array([sum(float(logits[slot, row[slot]]) for slot in free) for row in table])
    if model.config.normalise == "codes":
        return logits.log_softmax(-1).numpy(), scores
    agrees = np.array([all(row[s] == fixed[s] for s in slots if s not in free) for row in table])
    shares = np.where(agrees, np.exp(scores), 0) / np.exp(scores)[agrees].sum()
    of_codes = np.zeros(logits.shape)
    for row, share in zip(table, shares, strict=True):
        for slot in slots:
            of_codes[slot, row[slot]] += share
    with np.errstate(divide="ignore"):
        return np.log(of_codes), np.log(shares)


def by_hand(model: MDGR, order: list[int]) -> np.ndarray:
    """Scores of every item: slots in this order one by one, the rest at once after it."""
    table = model.codes.table
    scores = np.zeros(len(table))
    for item, row in enumerate(table.tolist()):
        fixed = [FREE] * len(row)
        for slot in order:
            scores[item] += said_by_hand(model, fixed)[0][slot, row[slot]]
            fixed[slot] = row[slot]
        scores[item] += said_by_hand(model, fixed)[1][item]
    return scores


def surest(model: MDGR) -> int:
    found = said_by_hand(model, [FREE] * model.codes.table.shape[1])[0]
    legal = np.zeros(found.shape, bool)
    for row in model.codes.table:
        legal[np.arange(len(row)), row] = True
    return int(np.where(legal, found, -np.inf).max(1).argmax())


def test_one_shot_scores_every_item_by_the_sum_of_its_codes(model: MDGR):
    found, exact = searched(model, 0), by_hand(model, [])
    assert sorted(found) == list(range(30))
    for item, score in found.items():
        assert score == pytest.approx(exact[item], abs=1e-3)


def test_one_step_of_warm_up_fixes_the_surest_slot(model: MDGR):
    """With as many beams as codes nothing is lost: every item has its exact two-stage score."""
    found, exact = searched(model, 1), by_hand(model, [surest(model)])
    assert sorted(found) == list(range(30))
    for item, score in found.items():
        assert score == pytest.approx(exact[item], abs=1e-3)


def test_serial_decoding_ends_at_items_of_the_catalog(model: MDGR):
    serial = searched(model, 4)
    assert len(serial) == 30
    network, begun, index = parts(model)
    beams = Beams.start(1, index)
    with torch.no_grad():
        for _ in range(4):
            said = network.say(beams.fixed, beams.of, begun)
            beams = beams.advance(network.log_probs(beams.fixed, said), index, 7)
            assert len(beams.fixed.unique(dim=0)) == len(beams.fixed) <= 7
    table = {tuple(row) for row in model.codes.table.tolist()}
    assert {tuple(row) for row in beams.fixed.tolist()} <= table
    assert (beams.scores.diff() <= 1e-5).all()


def test_beams_of_several_queries_do_not_mix(model: MDGR, ordinary: Split):
    histories = ordinary.test.histories.take(np.arange(9))
    model.config = model.config.model_copy(update={"warm_up": 2, "beams": 5})
    together = model.recommend(histories, 5)
    for row in range(9):
        alone = model.recommend(histories.take(np.array([row])), 5)
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-4)


def test_beams_are_as_many_as_lead_to_twice_the_list(model: MDGR):
    index = SlotIndex.from_table(model.codes.table, 6)  # 30 items, 5 for each code of a slot
    model.config = model.config.model_copy(update={"warm_beams": 2})
    assert [model._width(1, depth, index) for depth in (1, 5, 10, 30)] == [2, 2, 4, 12]
    assert model._width(2, 10, index) == 10  # one item or none for a pair of codes
    model.config = model.config.model_copy(update={"warm_beams": 8})
    assert model._width(1, 5, index) == 8


def test_masks_hide_at_least_one_slot_and_more_as_training_goes_on(ordinary: Split):
    network = fitted("mdgr", ordinary, curriculum=1, whole=0.0).network  # trained for two epochs
    assert isinstance(network, MDGRNetwork)
    items = torch.randint(0, 30, (40, 10))
    for progress, most in ((0.0, 2), (0.25, 3), (0.5, 4), (1.0, 4)):
        counts = network.masks(items, items.roll(-1, 1), progress).sum(-1)
        assert int(counts.min()) == 1 and int(counts.max()) == most
    share = network.masks(items, items, 1.0).sum(-1).float().mean()
    assert float(share) == pytest.approx(2.5, abs=0.15)  # 1 to 4, each as likely


def test_a_share_of_masks_hides_all_slots_once_the_curriculum_is_over(ordinary: Split):
    network = fitted("mdgr", ordinary, curriculum=1, whole=0.6).network
    assert isinstance(network, MDGRNetwork)
    items = torch.randint(0, 30, (60, 10))
    assert not network.masks(items, items, 0.2).all(-1).any()
    share = network.masks(items, items, 0.5).all(-1).float().mean()
    assert float(share) == pytest.approx(0.6 + 0.4 / 4, abs=0.06)


def test_without_a_curriculum_all_slots_may_be_hidden_from_the_first_batch(ordinary: Split):
    network = fitted("mdgr", ordinary, curriculum=0, whole=1.0).network
    assert isinstance(network, MDGRNetwork)
    items = torch.zeros(4, 5, dtype=torch.int64)
    assert network.masks(items, items, 0.0).all()


@pytest.mark.parametrize(("epochs", "ends"), [(1, 0.5), (4, 0.5), (10, 0.5), (50, 0.1)])
def test_the_curriculum_takes_at_most_half_of_the_training(
    ordinary: Split, epochs: int, ends: float
):
    """What is asked begins with all slots hidden, so it must be trained however short that is."""
    network = fitted("mdgr", ordinary, curriculum=5, whole=0.6).network
    assert isinstance(network, MDGRNetwork)
    train = network.config.train.model_copy(update={"epochs": epochs})
    network.config = network.config.model_copy(update={"train": train})
    items = torch.randint(0, 30, (60, 10))
    assert not network.masks(items, items, 0.99 * ends).all(-1).any()
    assert float(network.masks(items, items, ends).all(-1).float().mean()) > 0.6


def test_overlap_is_the_share_of_the_history_with_the_code(model: MDGR):
    network = model.network
    assert isinstance(network, MDGRNetwork)
    table = model.codes.table
    items, goals = torch.tensor([[4, 8, 15]]), torch.tensor([[8, 8, 15, 15, 2, 2]])  # two views
    found = network.overlap(items, goals)[0]
    for place, goal in enumerate([8, 8, 15, 15, 2, 2]):
        shown = table[[4, 8, 15][: place // 2 + 1]]
        np.testing.assert_allclose(found[place], (shown == table[goal]).mean(0), atol=1e-6)


def test_slots_that_the_history_does_not_show_are_hidden_rather(ordinary: Split):
    made = fitted("mdgr", ordinary, adaptive=3.0, whole=0.0)
    network = made.network
    assert isinstance(network, MDGRNetwork)
    items = torch.randint(0, 30, (200, 6))
    goals = torch.randint(0, 30, (200, 6))
    overlap = network.overlap(items, goals)
    mixed = (overlap.amax(-1) > 0.3) & (overlap.amin(-1) == 0)
    masks = network.masks(items, goals, 0.0)[mixed].float()
    strange = (overlap[mixed] == 0).float()
    known = 1 - strange
    assert (masks * strange).sum() / strange.sum() > (masks * known).sum() / known.sum() + 0.1


def test_loss_of_a_hand_computed_case(ordinary: Split, monkeypatch: pytest.MonkeyPatch):
    """The mean over hidden slots, times the number of slots."""
    made = fitted("mdgr", ordinary, normalise="codes")
    network = made.network
    assert isinstance(network, MDGRNetwork)
    mask = torch.tensor([[[True, False, True, False]]])
    monkeypatch.setattr(network, "masks", lambda *_: mask)
    table = torch.from_numpy(made.codes.table).long()
    items, goal = torch.tensor([[4]]), 7
    with torch.no_grad():
        found = float(network.loss(items, torch.tensor([[goal]]), 1.0))
        begun = Begun(*network.memory_of_last(network.read(items), torch.tensor([1])))
        fixed = table[[goal]].masked_fill(mask[0], FREE)
        log_probs = network.say(fixed, torch.tensor([0]), begun).logits[0]
    hidden = [float(log_probs[slot, table[goal, slot]]) for slot in (0, 2)]
    assert found == pytest.approx(-sum(hidden) / 2 * 4, rel=1e-4)


def test_loss_of_an_item_among_those_that_agree(ordinary: Split, monkeypatch: pytest.MonkeyPatch):
    """Two events: after the first all slots are hidden, after the second some are known."""
    made = fitted("mdgr", ordinary, normalise="catalog")
    network, table = made.network, made.codes.table
    assert isinstance(network, MDGRNetwork) and isinstance(made, MDGR)
    known = next(slot for slot in range(4) if (table[:, slot] == table[9, slot]).sum() > 2)
    masks = torch.ones(1, 2, 4, dtype=torch.bool)
    masks[0, 1, known] = False
    monkeypatch.setattr(network, "masks", lambda *_: masks)
    items, targets = torch.tensor([HISTORY[:2]]), torch.tensor([[HISTORY[1], 9]])
    with torch.no_grad():
        found = float(network.loss(items, targets, 1.0))
    fixed = [FREE] * 4
    fixed[known] = int(table[9, known])
    first = said_by_hand(made, [FREE] * 4, HISTORY[:1])[1][5]
    second = said_by_hand(made, fixed, HISTORY[:2])[1][9]
    assert found == pytest.approx(-first - second, rel=1e-4)


def test_probabilities_of_the_catalog_add_up_to_one(ordinary: Split):
    made = fitted("mdgr", ordinary, normalise="catalog", beams=30)
    assert isinstance(made, MDGR)
    for warm_up in range(5):
        scores = np.array(list(searched(made, warm_up).values()))
        assert np.exp(scores).sum() == pytest.approx(1, abs=1e-3)


def test_views_of_one_event_share_its_history(ordinary: Split, monkeypatch: pytest.MonkeyPatch):
    """Three views with one mask lose what one view with it does."""
    made = fitted("mdgr", ordinary)
    network, mask = made.network, torch.tensor([True, False, True, True])
    assert isinstance(network, MDGRNetwork)
    monkeypatch.setattr(network, "masks", lambda _, goals, __: mask.expand(*goals.shape, -1))
    found = []
    for views in (1, 3):
        network.config = made.config.model_copy(update={"views": views})
        with torch.no_grad():
            loss = network.loss(
                torch.tensor([[1, 2], [5, 0]]), torch.tensor([[3, 9], [4, -1]]), 1.0
            )
        found.append(float(loss))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_more_warm_up_than_slots_is_said():
    with pytest.raises(InputError, match="warm_up = 5 is more than the 4 slots"):
        generator("mdgr", warm_up=5)


def test_the_extra_level_is_a_slot(ordinary: Split):
    """Warm-up may fill it too; and with it all slots must go into a number of 64 bits."""
    extra = CodingConfig(tokenizer=OPQConfig(size=6, unique="extra"))
    made = fitted("mdgr", ordinary, codes=extra, warm_up=5)
    assert made.codes.levels == 5 and len(made.recommend([["i0001"]], 3)[0]) == 3
    with pytest.raises(InputError, match="warm_up = 6 is more than the 5 slots"):
        generator("mdgr", codes=extra, warm_up=6)
    with pytest.raises(InputError, match=r"opq: codes of 9 levels of 256 take 72 bits.*fewer"):
        generator("mdgr", codes={"tokenizer": {"unique": "extra"}})


@pytest.mark.parametrize(("normalise", "half"), [("catalog", True), ("codes", False)])
def test_a_catalog_is_a_vocabulary(
    ordinary: Split, monkeypatch: pytest.MonkeyPatch, normalise: str, half: bool
):
    """As for other models, its size decides about bfloat16: here of 30 items, or 6 codes."""
    monkeypatch.setattr("foretaste.recommenders.core.training.HALF_FROM_ITEMS", 30)
    model, told = generator("mdgr", normalise=normalise), set()
    loss = MDGRNetwork.loss

    def told_of(self: MDGRNetwork, *given, **named):
        told.add(given[3])
        return loss(self, *given, **named)

    monkeypatch.setattr(MDGRNetwork, "loss", told_of)
    model.fit(ordinary, RunContext(device="cpu"))
    assert told == {half}


def test_products_over_the_catalog_are_in_bfloat16_when_asked_for(ordinary: Split):
    model = fitted("mdgr", ordinary, whole=1.0, curriculum=0)  # every slot is hidden
    loss = CodeLoss(model.network)
    loss.progress = 1.0
    (batch, *_) = training_batches(ordinary.train, 10, 128, np.random.default_rng(0))
    with torch.no_grad():
        whole, half = float(loss(batch, False)), float(loss(batch, True))
    assert half != whole
    assert half == pytest.approx(whole, rel=5e-3)


@torch.no_grad()
def likelihoods(model: Generator) -> torch.Tensor:
    """Of all 30 items after ``HISTORY``."""
    items = torch.tensor([HISTORY]).repeat(30, 1)
    return model.network.likelihood(items, torch.full((30,), len(HISTORY)), torch.arange(30))


def reordered(model: Generator, order: list[int]) -> Generator:
    """The model with its slots in another order: their codes, and the weights that are theirs."""
    codes, made = model.codes, generator(model.name, **model.config.model_dump())
    made.codes = replace(
        codes,
        table=codes.table[:, order],
        nearest=codes.nearest[:, order],
        codebooks=tuple(codes.codebooks[slot] for slot in order),
    )
    made.network = made._network(made.codes)
    state, dim = model.network.state_dict(), model.config.dim
    slots, numbers = len(order), np.arange(sum(codes.sizes)).reshape(len(order), -1)
    for name in ("hidden", "slot", "place.weight"):
        if name in state:
            state[name] = state[name][order]
    state["codes.vectors.weight"] = state["codes.vectors.weight"][numbers[order].ravel()]
    first = state["joined.0.weight"].view(-1, slots, dim)  # what is read side by side
    state["joined.0.weight"] = first[:, order].flatten(1)
    made.network.load_state_dict(state)
    made.network.eval()
    made.catalog, made.popularity = model.catalog, model.popularity
    return made


def test_the_order_of_slots_says_nothing(ordinary: Split):
    """To one that fills them in any order; to one that writes the same codes it is the way."""
    order = [2, 0, 3, 1]
    parallel = fitted("mdgr", ordinary)
    torch.testing.assert_close(
        likelihoods(reordered(parallel, order)), likelihoods(parallel), atol=1e-4, rtol=1e-4
    )
    turned = reordered(parallel, order)
    assert isinstance(parallel, MDGR) and isinstance(turned, MDGR)
    for warm_up in (0, 1, 4):
        found, again = searched(parallel, warm_up), searched(turned, warm_up)
        assert again == pytest.approx(found, abs=1e-3)
    writing = fitted("tiger", ordinary, codes=parallel.config.codes)
    changed = likelihoods(reordered(writing, order)) - likelihoods(writing)
    assert float(changed.abs().max()) > 0.01


@pytest.mark.parametrize("normalise", ["codes", "catalog"])
def test_known_codes_are_heard_when_they_weigh_enough(normalise: str, ordinary: Split):
    moved = []
    for weight in (1.0, 8.0):
        model = fitted("mdgr", ordinary, normalise=normalise, known_weight=weight)
        network, begun, _ = parts(model)
        with torch.no_grad():
            logits = [
                network.logits(torch.tensor([[code, FREE, FREE, FREE]]), torch.tensor([0]), begun)
                for code in (FREE, 0, 1)
            ]
        moved.append([float((one - logits[0])[0, 1:].abs().mean()) for one in logits[1:]])
    for light, heavy in zip(*moved, strict=True):
        assert heavy > 3 * light > 0


@pytest.mark.parametrize("warm_up", [1, 2])
def test_scores_do_not_depend_on_the_candidates(warm_up: int, ordinary: Split):
    """Which slot is filled first is chosen as among all items."""
    wide: dict[str, Any] = {"warm_up": warm_up, "warm_beams": 36, "known_weight": 8.0}
    model = fitted("mdgr", ordinary, normalise="codes", **wide)
    histories = [[f"i{item:04}"] for item in range(8)]
    every = model.recommend(histories, 30, exclude="none")
    few = model.recommend(histories, 3, exclude="none", candidates=["i0003", "i0011", "i0020"])
    for row in range(len(histories)):
        scores = dict(zip(every.items[row].tolist(), every.scores[row].tolist(), strict=True))
        for item, score in zip(few.items[row].tolist(), few.scores[row].tolist(), strict=True):
            assert score == pytest.approx(scores[item], abs=1e-4)
