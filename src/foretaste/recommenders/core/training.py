"""Training by gradient: epochs, early stopping, checkpoints that resume bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.data.batches import training_batches
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError, NotNumbersError
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.checkpoint import (
    Origin,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
)
from foretaste.recommenders.core.results import Epoch, FitReport
from foretaste.recommenders.core.train_config import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

HALF_FROM_ITEMS = 5_000
"""Catalog size from which products in bfloat16 are faster than in float32 on a CPU."""


class AnyBatch(Protocol):
    """A named tuple of arrays with a row for each sequence, or None for what is unknown."""

    @property
    def tokens(self) -> int:
        """Targets in the batch: what the sum of losses is divided by."""
        ...


class Pass(Protocol):
    """The batches of one epoch, each made when it is reached."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[AnyBatch]: ...


class TrainingData(Protocol):
    """What a network learns from, where that is not the next item of sequences."""

    def batches(self, rng: np.random.Generator) -> Pass:
        """Those of one epoch; nothing but ``rng`` may make them differ from another's."""
        ...


@runtime_checkable
class Curriculum(Protocol):
    """A loss that changes while training goes on.

    Attributes:
        progress: the share of all epochs that is done, set before every batch.
    """

    progress: float


@dataclass(frozen=True)
class NextItems:
    """Windows of sequences in which every event asks for the next item."""

    sequences: Sequences
    length: int
    config: TrainConfig

    def __post_init__(self) -> None:
        """Refuses data that holds no next item."""
        if not (self.sequences.lengths > 1).any():
            raise InputError(
                "no user has two events in train, so there is no next item to learn. "
                "Use a model that needs no order, such as popularity."
            )

    def batches(self, rng: np.random.Generator) -> Pass:
        """See ``TrainingData``."""
        every, budget = self.config.windows == "every", self.config.batch_tokens
        return training_batches(self.sequences, self.length, budget, rng, every=every)


@dataclass(frozen=True)
class Objective:
    """What is trained.

    Attributes:
        loss: a module whose ``forward(batch, half)`` gives the sum of the losses of a batch;
            ``half`` asks for catalog products in bfloat16. It holds all that has parameters.
        network: the part of ``loss`` whose weights are kept.
        validate: the validation metric of the network as it stands; None without validation.
        length: the longest window, in events.
        items: size of the vocabulary, from which on products are made in bfloat16 by themselves.
        origin: what the network is of.
        kept: what was made before training and goes into its checkpoints (``read_kept``).
    """

    loss: nn.Module
    network: nn.Module
    validate: Callable[[], float] | None
    length: int
    items: int
    origin: Origin = field(default_factory=Origin)
    kept: dict[str, np.ndarray] = field(default_factory=dict)


class Trainer:
    """Trains one objective on one set of sequences, or on data that makes its own batches.

    With ``run.folder`` a checkpoint is written after every epoch, and a run that was cut off goes
    on from it: random choices depend on the seed and the epoch only, so the same data and
    configuration give equal weights, bit for bit. With several devices every batch is divided
    among them, and the gradients are those of the whole batch.
    """

    def __init__(
        self,
        objective: Objective,
        data: Sequences | TrainingData,
        config: TrainConfig,
        run: RunContext,
    ) -> None:
        """Nothing happens yet.

        Raises:
            InputError: when no user has two training events.
        """
        if isinstance(data, Sequences):
            data = NextItems(data, objective.length, config)
        self.objective, self.data = objective, data
        self.config, self.run = config, run
        self.state = TrainingState()

    def fit(self) -> FitReport:
        """Train; the weights of the best epoch are in the objective's network afterwards.

        Raises:
            InputError: when the loss, a weight or a score is no longer a number, or a checkpoint
                does not fit.
        """
        config, run, network = self.config, self.run, self.objective.network
        optimizer = self.prepare()
        stopped = "all epochs done"
        with run.progress.task("training", config.epochs) as task:
            task.advance(self.state.next_epoch - 1)
            while self.state.next_epoch <= config.epochs:
                if self._patience_is_over():
                    stopped = f"{config.metric} no better for {config.patience} validations"
                    break
                epoch = self._epoch()
                if run.folder is not None and self.fabric.is_global_zero:
                    origin, kept = self.objective.origin, self.objective.kept
                    save_checkpoint(run.folder, network, optimizer, self.state, origin, kept)
                    run.log("epoch", **epoch._asdict())
                self.fabric.barrier()
                task.advance(1, self._note(epoch))
        if self.state.best:
            network.load_state_dict(self.state.best)
        curve = tuple(self.state.curve)
        return FitReport(self.state.seconds, curve, self.state.best_epoch, stopped)

    def _patience_is_over(self) -> bool:
        config, state = self.config, self.state
        due = config.patience > 0 and state.next_epoch > config.min_epochs
        return due and state.since_best >= config.patience

    def prepare(self) -> torch.optim.Optimizer:
        """Set up devices and optimizer and take up a checkpoint, if any. ``fit`` does so."""
        run, network = self.run, self.objective.network
        if run.threads:
            torch.set_num_threads(run.threads)
        self.fabric = _fabric(run)
        self.fabric.launch()
        optimizer = _optimizer(self.objective.loss, self.config)
        if run.folder is not None:
            begun = load_checkpoint(run.folder, network, optimizer, self.objective.origin)
            self.state = begun or self.state
        if run.compile:
            network.compile(dynamic=True)
        self.loss, self.optimizer = self.fabric.setup(self.objective.loss, optimizer)
        return optimizer

    def _epoch(self) -> Epoch:
        begin, number = time.perf_counter(), self.state.next_epoch
        rng = np.random.default_rng([self.run.seed, number])
        torch.manual_seed(int(rng.integers(2**62)) + self.fabric.global_rank)
        mean, targets = self.learn(rng)
        if not math.isfinite(mean):
            raise self._lost(f"the loss became {mean}")
        # The loss is of the weights before a step: after the last one it may be too late.
        if not all(bool(weight.isfinite().all()) for weight in self.objective.loss.parameters()):
            raise self._lost("the weights became infinite")
        valid = self._validate(number)
        seconds = time.perf_counter() - begin
        epoch = Epoch(number, mean, targets, seconds, valid)
        self.state.seconds += seconds
        self.state.curve.append(epoch)
        self.state.next_epoch += 1
        return epoch

    def _lost(self, what: str) -> InputError:
        return InputError(
            f"{what} in epoch {self.state.next_epoch}. Lower train.learning_rate (now "
            f"{self.config.learning_rate:g}) or train.clip (now {self.config.clip:g}; 0 is none)."
        )

    def learn(self, rng: np.random.Generator) -> tuple[float, int]:
        """One pass over the data after ``prepare``: the mean loss and the number of targets."""
        config = self.config
        batches = self.data.batches(rng)
        half = _half(self.run, self.objective.items, self.fabric)
        self.loss.train()
        total = torch.zeros((), device=self.fabric.device)
        targets = 0
        for index, batch in enumerate(batches):
            done = (self.state.next_epoch - 1 + index / len(batches)) / config.epochs
            self._set_rate(done)
            if isinstance(self.objective.loss, Curriculum):
                self.objective.loss.progress = done
            value = self.loss(_share(batch, self.fabric), half)
            # DDP averages gradients over processes: times their number, this is the mean loss
            # over the targets of the whole batch, wherever they were computed.
            self.fabric.backward(value * (self.fabric.world_size / batch.tokens))
            if config.clip:
                self.fabric.clip_gradients(
                    self.loss, self.optimizer, max_norm=config.clip, error_if_nonfinite=False
                )  # a loss that is no number is told of at the end of the epoch
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            total += value.detach()
            targets += batch.tokens
            self.state.step += 1
        if self.fabric.world_size > 1:
            total = cast(Tensor, self.fabric.all_reduce(total, reduce_op="sum"))
        return float(total) / max(targets, 1), targets

    def _set_rate(self, done: float) -> None:
        """The learning rate for the share ``done`` of all epochs."""
        rate = self.config.learning_rate
        if self.config.schedule == "cosine":
            rate *= 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2
        rate *= min(1.0, (self.state.step + 1) / max(self.config.warmup_steps, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _validate(self, number: int) -> float | None:
        """The validation metric when it is due; remembers the best weights."""
        state, validate = self.state, self.objective.validate
        last = number == self.config.epochs
        if validate is None or (number % self.config.validate_every and not last):
            return None
        value, numbers = 0.0, True
        if self.fabric.is_global_zero:
            self.objective.loss.eval()
            try:
                value = validate()
            except NotNumbersError:  # huge weights are numbers, their products are not
                numbers = False
        value, numbers = self.fabric.broadcast((float(value), numbers))
        if not numbers:
            raise self._lost("the scores became nan")
        if state.best_value is None or value > state.best_value:
            state.best_value, state.best_epoch, state.since_best = value, number, 0
            weights = self.objective.network.state_dict()
            state.best = {name: weight.detach().clone() for name, weight in weights.items()}
        else:
            state.since_best += 1
        return value

    def _note(self, epoch: Epoch) -> str:
        speed = epoch.targets / max(epoch.seconds, 1e-9)
        valid = "" if epoch.valid is None else f" {self.config.metric} {epoch.valid:.4f}"
        return f"loss {epoch.loss:.3f}{valid} ({speed:,.0f} targets/s)"


def _fabric(run: RunContext) -> Fabric:
    from lightning_fabric import Fabric  # two seconds that a server need not wait for

    accelerated = run.device in ("auto", "cuda") and torch.cuda.is_available()
    if run.device == "cuda" and not accelerated:
        raise InputError("--device cuda: no CUDA device is here. Choose cpu or auto.")
    if run.device == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: no Apple GPU is here. Choose cpu or auto.")
    mixed = run.precision == "bf16" or (run.precision == "auto" and accelerated)
    several = run.devices * run.nodes > 1
    return Fabric(
        accelerator="cuda" if accelerated else ("mps" if run.device == "mps" else "cpu"),
        devices=run.devices,
        num_nodes=run.nodes,
        strategy="ddp" if several else "auto",
        precision="bf16-mixed" if mixed else "32-true",
    )


def _half(run: RunContext, items: int, fabric: Fabric) -> bool:
    if run.precision == "auto":
        return items >= HALF_FROM_ITEMS or fabric.device.type != "cpu"
    return run.precision == "bf16"


def _optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _share(batch: Any, fabric: Fabric) -> Any:
    """This process's part of a batch, every n-th sequence; of a tiny batch maybe none."""
    if fabric.world_size == 1:
        return batch
    mine = slice(fabric.global_rank, None, fabric.world_size)
    return batch._make(None if part is None else part[mine] for part in batch)
