"""What the networks of sequence models promise: causality, padding, ``last``, the mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretaste.data.batches import training_batches
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.recommenders.bert4rec import (
    BERT4Rec,
    BERT4RecConfig,
    BERT4RecNetwork,
    ClozeLoss,
    appended,
)
from foretaste.recommenders.core.registry import find, names
from foretaste.recommenders.core.sequence import Histories, SequenceNetwork, SequenceRecommender
from foretaste.recommenders.hstu import HSTUNetwork

ITEMS = 20
SEQUENCE = [name for name in names() if issubclass(find(name), SequenceRecommender)]
CAUSAL = [name for name in SEQUENCE if name != "bert4rec"]


def network(name: str) -> SequenceNetwork:
    """Random weights large enough that everything matters."""
    torch.manual_seed(0)
    model = find(name)(dim=8, max_length=12)
    assert isinstance(model, SequenceRecommender)
    made = model._network(ITEMS).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return made


def histories(seed: int = 1, times: bool = True) -> Histories:
    """Four right-padded histories of lengths 3, 9, 1 and 7."""
    rng = np.random.default_rng(seed)
    lengths = torch.tensor([3, 9, 1, 7])
    real = torch.arange(9) < lengths[:, None]
    items = torch.from_numpy(rng.integers(0, ITEMS, (4, 9))).int() * real
    when = 10**12 + np.cumsum(rng.integers(0, 10**9, (4, 9)), 1)
    return Histories(items, lengths, torch.from_numpy(when) * real if times else None)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_later_events_do_not_reach_back(name: str, times: bool):
    made, asked = network(name), histories(times=times)
    before = made(asked)
    items = asked.items.clone()
    items[:, 5:] = (items[:, 5:] + 7) % ITEMS
    later = None if asked.times is None else asked.times.clone()
    if later is not None:
        later[:, 5:] += 12_345_678
    after = made(Histories(items, asked.lengths, later))
    close(after[:, :5], before[:, :5])
    assert not torch.allclose(after[1, 5:], before[1, 5:], atol=1e-3)


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_last_is_forward_at_the_last_place(name: str, times: bool):
    made, asked = network(name), histories(times=times)
    close(made.last(asked), made(asked)[torch.arange(4), asked.lengths - 1])


@pytest.mark.parametrize(("layers", "window"), [(1, 3), (2, 3), (2, 5), (3, 3), (4, 1)])
@pytest.mark.parametrize("name", ["sasrec", "hstu"])
@torch.no_grad()
def test_last_leaves_out_only_what_no_block_looks_at(name: str, layers: int, window: int):
    torch.manual_seed(0)
    model = find(name)(dim=8, layers=layers, window=window)
    assert isinstance(model, SequenceRecommender)
    made = model._network(ITEMS).eval()
    for weight in made.parameters():
        weight.add_(0.3 * torch.randn_like(weight))
    whole = histories()
    for lengths in ([9, 9, 9, 9], [8, 9, 7, 8], [3, 9, 1, 7]):
        asked = Histories(whole.items, torch.tensor(lengths), whole.times)
        close(made.last(asked), made(asked)[torch.arange(4), asked.lengths - 1])


@pytest.mark.parametrize("name", SEQUENCE)
@torch.no_grad()
def test_padding_does_not_matter(name: str):
    made, asked = network(name), histories()
    together = made.last(asked)
    assert asked.times is not None
    for row, length in enumerate(asked.lengths.tolist()):
        alone = Histories(
            asked.items[row, None, :length],
            asked.lengths[row, None],
            asked.times[row, None, :length],
        )
        close(made.last(alone)[0], together[row])
    # What lies in the padding is never looked at.
    padding = torch.arange(9) >= asked.lengths[:, None]
    dirty = asked._replace(
        items=asked.items.masked_fill(padding, 11), times=asked.times.masked_fill(padding, 77)
    )
    close(made.last(dirty), together)


@pytest.mark.parametrize("name", SEQUENCE)
@torch.no_grad()
def test_order_matters(name: str):
    made = network(name)
    pair = Histories(torch.tensor([[1, 2, 3], [2, 1, 3]]).int(), torch.tensor([3, 3]), None)
    one, other = made.last(pair)
    assert not torch.allclose(one, other, atol=1e-3)


@torch.no_grad()
def test_hstu_reads_the_time_between_events():
    made, asked = network("hstu"), histories()
    assert asked.times is not None
    real = asked.times > 0
    shifted = asked._replace(times=(asked.times + 10**9) * real)
    stretched = asked._replace(times=asked.times * 8)
    close(made.last(shifted), made.last(asked))
    long = asked.lengths > 1  # one event has no gap
    assert not torch.allclose(made.last(stretched)[long], made.last(asked)[long], atol=1e-3)
    assert isinstance(made, HSTUNetwork)
    made.reads_time = False
    close(made.last(stretched), made.last(asked._replace(times=None)))


# --- BERT4Rec ----------------------------------------------------------------------------------


@torch.no_grad()
def test_bert4rec_last_is_forward_at_an_appended_mask():
    made, asked = network("bert4rec"), histories()
    assert isinstance(made, BERT4RecNetwork)
    longer = appended(asked, torch.full_like(asked.lengths, made.mask))
    assert longer.items[0].tolist()[3:] == [made.mask, 0, 0, 0, 0, 0, 0]
    close(made.last(asked), made(longer)[torch.arange(4), asked.lengths])
    other = asked._replace(items=asked.items.clone())
    other.items[1, 8] = (other.items[1, 8] + 1) % ITEMS
    moved = made(other)[1, :8] - made(asked)[1, :8]
    assert (moved.abs().amax(1) > 1e-4).all()  # both directions


def test_bert4rec_hides_the_last_event_often_enough():
    torch.manual_seed(0)
    config = BERT4RecConfig.model_validate(
        {"dim": 8, "max_length": 20, "mask_share": 0.25, "last_share": 0.5}
    )
    loss = ClozeLoss(BERT4RecNetwork(ITEMS, config), config, np.ones(ITEMS))
    lengths = torch.randint(2, 20, (4000,))
    hidden = loss.choose(lengths, 20)
    real = torch.arange(20) < lengths[:, None]
    assert hidden.any(1).all() and not (hidden & ~real).any()
    last = hidden[torch.arange(4000), lengths - 1]
    only = last & (hidden.sum(1) == 1)
    assert only.float().mean() > 0.5
    inner = hidden & (torch.arange(20) < lengths[:, None] - 1)
    share = inner.sum() / (lengths - 1).sum()  # in the half of the windows where chance decides
    assert share == pytest.approx(0.5 * 0.25, abs=0.01)


def test_bert4rec_hidden_events_are_never_read(monkeypatch):
    torch.manual_seed(0)
    config = BERT4RecConfig.model_validate({"dim": 8, "max_length": 6, "dropout": 0})
    made = BERT4RecNetwork(ITEMS, config)
    loss = ClozeLoss(made, config, np.ones(ITEMS))
    seen, forward = [], made.forward
    monkeypatch.setattr(made, "forward", lambda asked: seen.append(asked) or forward(asked))
    rows = Sequences.from_lists([[1, 2, 3, 4, 5, 6], [7, 8, 9], [3, 1]])
    for batch in training_batches(rows, 5, 64, np.random.default_rng(0)):
        torch.manual_seed(4)
        value = loss(batch, False)
        whole = {
            tuple(row[:length].tolist()) for row, length in zip(rows, rows.lengths, strict=True)
        }
        found = seen[-1]
        masked = found.items == ITEMS
        assert masked.any(1).all()
        for read, mask, length in zip(found.items, masked, found.lengths.tolist(), strict=True):
            assert any(
                len(row) == length
                and all(
                    m or r == v for r, m, v in zip(read.tolist(), mask.tolist(), row, strict=False)
                )
                for row in whole
            )
        assert value.isfinite()


def test_bert4rec_never_recommends_the_mask(ordinary):
    model = BERT4Rec(dim=8, max_length=6, train={"epochs": 1})
    model.fit(ordinary)
    with torch.no_grad():  # make the mask everybody's favourite
        model.network.items.weight[-1] = 100
    scores = next(iter(model.scores(ordinary.test.histories, exclude="none")))[1]
    assert scores.shape[1] == ordinary.items
    found = model.recommend(ordinary.test.histories, 1000, exclude="none")
    assert found.items.max() == ordinary.items - 1


def test_bert4rec_reads_one_event_less_than_it_has_places(ordinary):
    model = BERT4Rec(dim=8, max_length=5, train={"epochs": 1})
    model.fit(ordinary)
    found = model.recommend([["i0009", "i0001", "i0002", "i0003", "i0004"]], 3, exclude="none")
    same = model.recommend([["i0001", "i0002", "i0003", "i0004"]], 3, exclude="none")
    np.testing.assert_array_equal(found.items, same.items)
    with pytest.raises(InputError, match="max_length"):
        BERT4Rec(max_length=1)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "hstu"])
def test_heads_must_divide_the_width(name: str):
    with pytest.raises(InputError, match="dim = 10 must be a multiple of heads = 3"):
        find(name)(dim=10, heads=3)


@pytest.mark.parametrize("loss", ["softmax", "sampled", "gbce"])
def test_every_loss_learns_a_cycle(loss: str, cyclic):
    train = {"epochs": 30, "validate_every": 30, "batch_tokens": 128, "learning_rate": 0.01}
    model = find("sasrec")(dim=16, max_length=12, dropout=0, loss=loss, negatives=8, train=train)
    model.fit(cyclic)
    found = model.recommend(cyclic.test.histories, 1)
    right = found.items[:, 0] == cyclic.test.targets.items
    assert right.mean() > 0.9
