"""S2GR: thoughts, what they are taught, and the controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from foretaste.codes.beam import Step
from foretaste.data.split import Split
from foretaste.recommenders.s2gr import S2GRNetwork, clusters_of
from foretaste.recommenders.tiger import Asking

from .generators import fitted, lost


def network_of(split: Split, **parameters) -> S2GRNetwork:
    network = fitted("s2gr", split, clusters=3, **parameters).network
    assert isinstance(network, S2GRNetwork)
    return network.requires_grad_(False)


def asking_of(network: S2GRNetwork, history: list[int]) -> Asking:
    items, lengths = torch.tensor([history]), torch.tensor([len(history)])
    return network.ask(items, lengths)


@pytest.mark.parametrize("thinking", ["stepwise", "first"])
def test_thoughts_when_asked_are_those_of_training(thinking: str, ordinary: Split):
    network = network_of(ordinary, thinking=thinking)
    history, goal = [0, 5, 3], 11
    reading = network.read(torch.tensor([history]))
    memory, texts = network.memory_of_all(reading)
    goals = torch.tensor([0, 0, goal])
    taught = network.teach(reading.events[0], goals, memory, texts).thoughts
    assert taught is not None
    asking, codes = asking_of(network, history), network.codes.codes_of(torch.tensor([goal]))
    row = torch.tensor([0])
    for level in range(network.codes.levels):
        network.write(Step(level, row, codes[:, :level], row if level else None), asking)
    for level in range(network.codes.levels):
        torch.testing.assert_close(
            asking.thoughts[level][0], taught[2, level], atol=1e-5, rtol=1e-4
        )


def test_alignment_is_the_cross_entropy_of_the_cluster(ordinary: Split):
    network = network_of(ordinary, temperature=0.5)
    thoughts, goals = torch.randn(2, 3, 16), torch.tensor([4, 17])
    found = network.alignment(thoughts, goals)
    for row, goal in enumerate(goals):
        for level in range(3):
            code = int(network.codes.codes_of(goal)[level])
            point = network.pointing[level](thoughts[row, level])
            centres = getattr(network, f"centres_{level}")
            cosines = torch.stack([F.cosine_similarity(point, one, dim=0) for one in centres])
            right = int(network.clusters(level)[code])
            expected = -F.log_softmax(cosines / 0.5, 0)[right]
            torch.testing.assert_close(found[row, level], expected, atol=1e-5, rtol=1e-4)


def test_the_loss_has_the_parts_that_are_asked_for(ordinary: Split):
    bare = fitted("s2gr", ordinary)
    none = bare.config.model_copy(update={"align": 0, "contrast": 0, "regularise": 0})
    bare.network.config = none
    plain = lost(bare, [0, 5], 3)
    for part in ("align", "contrast", "regularise"):
        bare.network.config = none.model_copy(update={part: 1.0})
        more = lost(bare, [0, 5], 3)
        # One goal in the batch: nothing to tell it from, so contrast says nothing.
        assert (more > plain + 1e-4) is (part != "contrast"), part


def test_the_weight_of_alignment_falls_to_nothing_over_the_epochs_it_fades(ordinary: Split):
    model = fitted("s2gr", ordinary, fade=4, train={"epochs": 10})
    network, items = model.network, torch.tensor([[0, 5]])
    targets, config = torch.tensor([[-1, 3]]), model.config

    def loss(progress: float, **changed: float) -> float:
        network.config = config.model_copy(update=changed)
        with torch.no_grad():
            return float(network.loss(items, targets, progress))

    nothing = loss(0.0, align=0.0)
    whole = loss(0.0) - nothing
    assert whole > 1e-3
    for epoch, share in ((0, 1), (1, 0.75), (2, 0.5), (4, 0), (9, 0)):
        assert loss(epoch / 10) - nothing == pytest.approx(share * whole, abs=1e-4), epoch
        assert loss(epoch / 10, fade=0) - nothing == pytest.approx(whole, abs=1e-4), epoch


def test_the_lighter_decoder_is_taught_which_goal_of_the_batch_it_is(ordinary: Split):
    """InfoNCE, and the cosine to the first thought, as they are by hand."""
    network = network_of(ordinary, temperature=0.5, contrast=2.0, regularise=0.0)
    reading = network.read(torch.tensor([[0, 5, 3], [7, 1, 0]]))
    real, goals = torch.tensor([0, 1, 2, 3, 5]), torch.tensor([5, 3, 9, 1, 5])  # 5 is asked twice
    first, said = torch.randn(5, 16), []
    hook = network.light.register_forward_hook(lambda _, __, out: said.append(out[0][real, 0]))
    contrast = network._whole(reading, first, goals, real)
    network.config = network.config.model_copy(update={"contrast": 0.0, "regularise": 3.0})
    apart = network._whole(reading, first, goals, real)
    hook.remove()
    expected = 0.0
    for row, goal in zip(said[0], goals.tolist(), strict=True):
        near = {
            item: F.cosine_similarity(row, network.codes.of_items(torch.tensor(item)).mean(0), 0)
            for item in (1, 3, 5, 9)
        }
        total = sum(torch.exp(cosine / 0.5) for cosine in near.values())
        expected -= torch.log(torch.exp(near[goal] / 0.5) / total)
    torch.testing.assert_close(contrast, 2 * expected, atol=1e-4, rtol=1e-4)
    cosines = torch.stack(
        [F.cosine_similarity(a, b, 0) for a, b in zip(first, said[1], strict=True)]
    )
    torch.testing.assert_close(apart, 3 * (1 - cosines).sum(), atol=1e-4, rtol=1e-4)


def test_the_lighter_decoder_teaches_and_is_not_taught_by_the_thought(ordinary: Split):
    network = fitted("s2gr", ordinary, align=0, contrast=1.0, regularise=1.0).network
    assert isinstance(network, S2GRNetwork)
    network.zero_grad(set_to_none=True)
    network.config = network.config.model_copy(update={"contrast": 0.0})
    network.train()
    items, targets = torch.tensor([[0, 5, 3]]), torch.tensor([[5, 3, 9]])
    with_it = network.loss(items, targets, 0.0)
    with_it.backward()
    assert all(parameter.grad is None for parameter in network.light.parameters())
    network.zero_grad()
    network.config = network.config.model_copy(update={"contrast": 1.0})
    network.loss(items, targets, 0.0).backward()
    grads = [parameter.grad for parameter in network.light.parameters()]
    assert any(grad is not None and bool(grad.abs().sum() > 0) for grad in grads)


def test_alignment_teaches_thoughts_the_cluster(cyclic: Split):
    """Trained with it, thoughts point at the right cluster far more often than by chance."""
    train = {"epochs": 40, "batch_tokens": 256, "learning_rate": 1e-2, "validate_every": 40}
    network = network_of(cyclic, train=train)
    items, goals = torch.tensor([[0, 1, 2, 3, 4]]), torch.tensor([1, 2, 3, 4, 5])
    reading = network.read(items)
    memory, texts = network.memory_of_all(reading)
    thoughts = network.teach(reading.events[0], goals, memory, texts).thoughts
    assert thoughts is not None
    codes = network.codes.codes_of(goals)
    right = [
        network.pointed(level, thoughts[:, level]).argmax(1)
        == network.clusters(level)[codes[:, level]]
        for level in range(3)
    ]
    assert float(torch.stack(right).float().mean()) > 0.8


def test_blank_thoughts_say_nothing_of_the_history(ordinary: Split):
    network = network_of(ordinary, thinking="blank")
    reading = network.read(torch.tensor([[0, 5, 3], [7, 7, 1]]))
    memory, texts = network.memory_of_all(reading)
    goals = torch.zeros(6, dtype=torch.int64)
    thoughts = network.teach(reading.events.flatten(0, 1), goals, memory, texts).thoughts
    assert thoughts is not None
    assert bool((thoughts == thoughts[0]).all())


@pytest.mark.parametrize("thinking", ["stepwise", "first", "blank"])
def test_what_stands_for_a_thought_is_never_dropped_out(thinking: str, ordinary: Split):
    """The control would differ in its noise too."""
    network = network_of(ordinary, thinking=thinking, dropout=0.5).train()
    read: list[torch.Tensor] = []

    def look(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        read.append(inputs[0])

    network.decoder.register_forward_pre_hook(look)
    reading = network.read(torch.tensor([[0, 5, 3], [7, 7, 1]]))
    memory, texts = network.memory_of_all(reading)
    goals = torch.zeros(6, dtype=torch.int64)
    thoughts = network.teach(reading.events.flatten(0, 1), goals, memory, texts).thoughts
    assert thoughts is not None
    fed = torch.cat(read, 1)  # [R, all places, D]
    for level in range(thoughts.shape[1]):
        same = (fed == thoughts[:, None, level]).all(-1)
        assert bool((same.sum(1) == 1).all())


def test_clusters_are_the_nearest_centres():
    book = np.concatenate([np.zeros((3, 2)), np.full((4, 2), 9.0)]).astype(np.float32)
    book += np.random.default_rng(0).normal(0, 0.1, book.shape).astype(np.float32)
    centres, clusters = clusters_of(book, 2, 0)
    assert len(centres) == 2
    assert clusters[:3].unique().numel() == clusters[3:].unique().numel() == 1
    assert clusters[0] != clusters[3]
    assert len(clusters_of(book[:1], 5, 0)[0]) == 1


def test_shuffled_clusters_keep_their_sizes(ordinary: Split):
    kept, shuffled = (network_of(ordinary, shuffled=one) for one in (False, True))
    for level in range(3):
        one, other = kept.clusters(level), shuffled.clusters(level)
        assert one.bincount().tolist() == other.bincount(minlength=len(one.bincount())).tolist()
        assert not torch.equal(one, other)
