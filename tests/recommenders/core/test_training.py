"""Training: resumed equals uninterrupted bit for bit, rates, clipping, early stopping."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foretaste.data.batches import Batch
from foretaste.data.sequences import Sequences
from foretaste.data.split import Queries
from foretaste.errors import InputError, NotNumbersError
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.checkpoint import FILE
from foretaste.recommenders.core.registry import find
from foretaste.recommenders.core.sequence import SequenceRecommender
from foretaste.recommenders.core.train_config import TrainConfig
from foretaste.recommenders.core.training import Objective, Trainer

from ..killing import Killed, KilledAfter

SEQUENCES = Sequences.from_lists([[i % 5, (i + 1) % 5, (i + 2) % 5] for i in range(20)])


def model(name: str = "sasrec", **train) -> SequenceRecommender:
    settings = {"epochs": 5, "batch_tokens": 100, "learning_rate": 0.01, "schedule": "cosine"}
    made = find(name)(dim=8, max_length=8, dropout=0.3, train=settings | train)
    assert isinstance(made, SequenceRecommender)
    return made


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


# --- The same weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
@pytest.mark.parametrize("killed_after", [1, 2, 4, 5])
def test_resumed_equals_uninterrupted(name: str, killed_after: int, ordinary, tmp_path: Path):
    straight = model(name)
    expected = straight.fit(ordinary, RunContext(seed=5))
    with pytest.raises(Killed):
        model(name).fit(
            ordinary, RunContext(seed=5, folder=tmp_path, progress=KilledAfter(killed_after))
        )
    torch.manual_seed(999)  # another process starts from another state
    resumed = model(name)
    report = resumed.fit(ordinary, RunContext(seed=5, folder=tmp_path))
    assert same(resumed._arrays(), straight._arrays())
    assert [e[:3] + e[4:] for e in report.epochs] == [e[:3] + e[4:] for e in expected.epochs]
    assert (report.best_epoch, report.stopped) == (expected.best_epoch, expected.stopped)


def test_killed_again_and_again(ordinary, tmp_path: Path):
    straight = model(patience=2, min_epochs=0, epochs=6)
    expected = straight.fit(ordinary, RunContext(seed=1))
    for _ in range(len(expected.epochs)):
        with pytest.raises(Killed):
            model(patience=2, min_epochs=0, epochs=6).fit(
                ordinary, RunContext(seed=1, folder=tmp_path, progress=KilledAfter(1))
            )
    resumed = model(patience=2, min_epochs=0, epochs=6)
    report = resumed.fit(ordinary, RunContext(seed=1, folder=tmp_path))
    assert same(resumed._arrays(), straight._arrays())
    assert report.stopped == expected.stopped


def test_a_folder_changes_nothing(ordinary, tmp_path: Path):
    without, within = model(), model()
    without.fit(ordinary, RunContext(seed=2))
    within.fit(ordinary, RunContext(seed=2, folder=tmp_path))
    assert same(without._arrays(), within._arrays())


def test_the_seed_decides(ordinary):
    models = [model(epochs=2) for _ in range(3)]
    for one, seed in zip(models, (1, 1, 2), strict=True):
        one.fit(ordinary, RunContext(seed=seed))
    assert same(models[0]._arrays(), models[1]._arrays())
    assert not same(models[0]._arrays(), models[2]._arrays())


def test_a_damaged_or_foreign_checkpoint_is_said(ordinary, tmp_path: Path):
    model(epochs=1).fit(ordinary, RunContext(folder=tmp_path))
    with pytest.raises(InputError, match="Delete it to train anew"):
        model("gru4rec").fit(ordinary, RunContext(folder=tmp_path))
    good = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match="damaged"):
        model().fit(ordinary, RunContext(folder=tmp_path))


def test_a_checkpoint_of_another_version_is_said(ordinary, tmp_path: Path, monkeypatch):
    model(epochs=1).fit(ordinary, RunContext(folder=tmp_path))
    monkeypatch.setattr(find("sasrec"), "version", 2)
    with pytest.raises(InputError, match=f"{tmp_path}: was written by an earlier version.*again"):
        model(epochs=1).fit(ordinary, RunContext(folder=tmp_path))


# --- One step -----------------------------------------------------------------------------------


class Slope(nn.Module):
    """A loss that is linear in two weights, so that gradients are known: 3 and 4 per event."""

    def __init__(self, broken_from: int = 10**9):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.calls, self.broken_from = 0, broken_from

    def forward(self, batch: Batch, half: bool) -> Tensor:
        self.calls += 1
        value = (self.weight * torch.tensor([3.0, 4.0])).sum() * batch.tokens
        return value * math.nan if self.calls >= self.broken_from else value


class Watched(Trainer):
    """Keeps the rate and the gradients of every step."""

    def fit(self):
        self.rates, self.gradients = [], []
        return super().fit()

    def learn(self, rng):
        step = self.optimizer.step
        inner = self.optimizer.optimizer

        def watched(*args, **kwargs):
            self.rates.append(inner.param_groups[0]["lr"])
            (weight,) = self.objective.loss.parameters()
            assert weight.grad is not None
            self.gradients.append(weight.grad.clone())
            return step(*args, **kwargs)

        self.optimizer.step = watched  # type: ignore[method-assign]
        try:
            return super().learn(rng)
        finally:
            del self.optimizer.step


def watched(loss: Slope | None = None, validate=None, **config) -> Watched:
    loss = loss or Slope()
    settings = {"epochs": 3, "batch_tokens": 4, "learning_rate": 0.5, "warmup_steps": 0} | config
    objective = Objective(loss, loss, validate, 8, 5)
    return Watched(objective, SEQUENCES, TrainConfig.model_validate(settings), RunContext())


def test_constant_rate_after_warmup():
    trainer = watched(warmup_steps=10)
    trainer.fit()
    # 20 rows of two inputs, two rows a batch: ten steps an epoch.
    expected = [0.5 * min(1, step / 10) for step in range(1, 31)]
    assert trainer.rates == pytest.approx(expected)


def test_cosine_rate_falls_to_a_hundredth():
    trainer = watched(schedule="cosine")
    trainer.fit()
    done = np.arange(30) / 30
    expected = 0.5 * (0.01 + 0.99 * (1 + np.cos(np.pi * done)) / 2)
    assert trainer.rates == pytest.approx(expected.tolist())
    assert trainer.rates[0] == 0.5 and trainer.rates[-1] < 0.01


@pytest.mark.parametrize(("clip", "norm"), [(0.0, 5.0), (1.0, 1.0), (7.0, 5.0)])
def test_gradients_are_those_of_the_mean_and_clipped(clip: float, norm: float):
    trainer = watched(clip=clip)
    trainer.fit()
    for gradient in trainer.gradients:
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-4)
        torch.testing.assert_close(gradient / gradient.norm(), torch.tensor([0.6, 0.8]))


def test_weight_decay_spares_vectors():
    trainer = watched()
    trainer.fit()
    groups = trainer.optimizer.param_groups
    assert [len(group["params"]) for group in groups] == [0, 1]


@pytest.mark.parametrize("broken_from", [1, 15])
def test_a_loss_that_is_no_number_is_said(broken_from: int):
    epoch = 1 + (broken_from - 1) // 10
    with pytest.raises(InputError, match=rf"nan in epoch {epoch}.*learning_rate.*clip \(now 1;"):
        watched(Slope(broken_from)).fit()


@pytest.mark.parametrize("validated", [True, False])
def test_weights_that_went_to_infinity_are_said_before_they_are_asked(validated: bool):
    class Cusp(Slope):
        def forward(self, batch: Batch, half: bool) -> Tensor:
            return self.weight.sqrt().sum() * batch.tokens  # 0, of infinite gradient

    # One step an epoch: the loss before it is a number, the weights after it are not.
    never = (lambda: pytest.fail("asked")) if validated else None
    with pytest.raises(InputError, match=r"weights became infinite in epoch 1\. Lower train\.l"):
        watched(Cusp(), never, batch_tokens=10_000).fit()


@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_scores_that_are_no_numbers_are_said(name: str, ordinary):
    # The weights themselves are still numbers: about 1e20.
    with pytest.raises(InputError, match=r"in epoch 1\. Lower train\.learning_rate \(now 1e\+20\)"):
        model(name, learning_rate=1e20, batch_tokens=10**6, warmup_steps=0).fit(ordinary)


def test_a_list_of_scores_that_are_no_numbers_is_none(ordinary):
    nothing = Queries(np.zeros(0, np.int32), Sequences.from_lists([]), Sequences.from_lists([]))
    run_away = model(learning_rate=1e20, batch_tokens=10**6, warmup_steps=0, epochs=1)
    run_away.fit(replace(ordinary, valid=nothing))  # nothing was asked of it yet
    with pytest.raises(NotNumbersError, match=r"this sasrec .* lower train\.learning_rate\."):
        run_away.recommend([["i0001"]])


def test_nothing_to_learn_is_said():
    with pytest.raises(InputError, match="no user has two events"):
        Trainer(
            Objective(Slope(), Slope(), None, 8, 5),
            Sequences.from_lists([[1], [2], []]),
            TrainConfig(),
            RunContext(),
        )


# --- When to stop --------------------------------------------------------------------------------


def planned(values: list[float], loss: Slope):
    """A validation with known values, which notes the weights it saw."""
    left, seen = list(values), []

    def validate() -> float:
        seen.append(loss.weight.detach().clone())
        return left.pop(0)

    return validate, seen


def test_early_stopping_keeps_the_best():
    loss = Slope()
    validate, seen = planned([0.1, 0.3, 0.2, 0.3, 0.25, 0.9], loss)
    trainer = watched(loss, validate, epochs=6, patience=3, min_epochs=0)
    report = trainer.fit()
    assert len(report.epochs) == 5  # the third without improvement; an equal value is none
    assert report.best_epoch == 2
    assert report.stopped == "ndcg@10 no better for 3 validations"
    assert [epoch.valid for epoch in report.epochs] == [0.1, 0.3, 0.2, 0.3, 0.25]
    assert torch.equal(loss.weight, seen[1])


def test_without_patience_all_epochs_run_and_the_best_is_kept():
    loss = Slope()
    validate, seen = planned([0.5, 0.4, 0.3], loss)
    report = watched(loss, validate, patience=0).fit()
    assert (len(report.epochs), report.best_epoch) == (3, 1)
    assert report.stopped == "all epochs done"
    assert torch.equal(loss.weight, seen[0])


def test_validation_when_it_is_due_and_at_the_end():
    loss = Slope()
    validate, _ = planned([0.1, 0.2, 0.3], loss)
    report = watched(loss, validate, epochs=5, validate_every=2).fit()
    assert [epoch.valid for epoch in report.epochs] == [None, 0.1, None, 0.2, 0.3]


def test_without_validation_the_last_weights_are_kept():
    loss = Slope()
    report = watched(loss).fit()
    assert report.best_epoch is None
    assert (loss.weight < 0).all()
    assert [epoch.targets for epoch in report.epochs] == [40, 40, 40]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_precision_learns(precision, ordinary):
    recommender = model(epochs=4)
    report = recommender.fit(ordinary, RunContext(precision=precision, device="cpu"))
    losses = [epoch.loss for epoch in report.epochs]
    assert losses[-1] < losses[0]
    assert recommender.network.items.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "field, value", [("device", "cuda:0"), ("device", "gpu"), ("precision", "fp16")]
)
def test_an_unknown_device_or_precision_is_no_other_one(field: str, value: str):
    with pytest.raises(InputError, match=f'{field} = "{value}" is unknown. Choose auto, '):
        RunContext(**{field: value})  # type: ignore[arg-type]
