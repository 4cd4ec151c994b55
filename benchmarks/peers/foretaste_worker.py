"""A process that measures Foretaste's SASRec by the protocol of the peers' workers.

The training loop, batches, loss, optimiser, ranking and metrics are those of the package: what
``foretaste train`` runs, without its files.
"""

import time
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import polars as pl
import torch
from wire import Json, serve

from foretaste.data.dataset import Dataset
from foretaste.data.reading import read_interactions
from foretaste.data.split import split
from foretaste.experiments.examining import matmul_rate
from foretaste.metrics import query_metrics, target_positions
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.sequence import NextItemLoss
from foretaste.recommenders.core.training import Objective, Trainer
from foretaste.recommenders.sasrec import SASRec

METRICS = ("ndcg@10", "hr@10")


class ForetastePeer:
    """Foretaste's SASRec on one data set at a time."""

    def load(self, data: str, config: Json) -> Json:
        """Read, split leave-last-out, and build network, loss and trainer."""
        torch.set_num_threads(config["threads"])
        start = time.perf_counter()
        frame = pl.read_parquet(data)
        dataset = Dataset.from_interactions(read_interactions(frame))
        self.split = split(dataset, "leave-last-out")
        self.model = SASRec(
            dim=config["dim"],
            layers=config["layers"],
            heads=config["heads"],
            max_length=config["max_len"],
            dropout=config["dropout"],
            train={
                "learning_rate": config["lr"],
                "batch_tokens": config.get("batch_tokens", 6_400),
                **config["extra"],
            },
        )
        torch.manual_seed(config["seed"])
        self.model.catalog, self.model.popularity = self.split.catalog, self.split.popularity
        self.model.network = self.model._network(self.split.items)
        loss = NextItemLoss(self.model.network, self.model.config, self.split.popularity)
        objective = Objective(loss, self.model.network, None, config["max_len"], self.split.items)
        run = RunContext(seed=config["seed"], precision=config.get("precision", "auto"))
        self.trainer = Trainer(objective, self.split.train, self.model.config.train, run)
        self.trainer.prepare()
        return {
            "versions": {"foretaste": version("foretaste"), "torch": torch.__version__},
            "users": len(dataset.users),
            "items": self.split.items,
            "parameters": sum(p.numel() for p in self.model.network.parameters()),
            "flops_per_target": self._flops(config),
            "seconds": time.perf_counter() - start,
        }

    def train(self, seconds: float) -> Json:
        """Whole epochs until at least that much time is over."""
        targets, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            targets += self._epoch()
        return {"targets": targets, "seconds": time.perf_counter() - begin, "epochs": self.epochs}

    def train_epoch(self) -> Json:
        """One epoch."""
        begin = time.perf_counter()
        targets = self._epoch()
        return {"targets": targets, "seconds": time.perf_counter() - begin}

    def evaluate(
        self, masked: bool, part: str, seconds_only: bool = False, events: int | None = None
    ) -> Json:
        """Scoring, ranking of the whole catalog and metrics of all users.

        ``events``: of a history, the last ones; by default all that two layers can look back on.
        """
        queries = getattr(self.split, part)
        begin = time.perf_counter()
        if events is not None:
            queries = replace(queries, histories=queries.histories.last(events))
        exclude = "seen" if masked else "none"
        answers = rank_queries(self.model, queries, METRICS, exclude=exclude)
        means = {name: float(values.mean()) for name, values in answers.metrics.items()}
        seconds = time.perf_counter() - begin
        answer: Json = {"users": len(queries), "seconds": seconds}
        return answer if seconds_only else answer | {"metrics": means}

    def score_metrics(self, scores: str, targets: str) -> Json:
        """Our metrics on given scores; the seconds do not hold reading."""
        table, wanted = torch.from_numpy(np.load(scores)), np.load(targets)
        begin = time.perf_counter()
        rows = np.arange(len(wanted))
        positions = target_positions(table, rows, wanted)
        found = query_metrics(positions, rows, len(wanted), METRICS)
        means = {name: float(values.mean()) for name, values in found.items()}
        return {"users": len(wanted), "seconds": time.perf_counter() - begin, "metrics": means}

    def matmul(self) -> Json:
        """Operations a second of a float32 matrix product with the same threads."""
        return {"flops": matmul_rate(2_048, 2.0)}

    @property
    def epochs(self) -> int:
        """Passes over the data so far."""
        return self.trainer.state.next_epoch - 1

    def _epoch(self) -> int:
        state = self.trainer.state
        rng = np.random.default_rng([self.trainer.run.seed, state.next_epoch])
        torch.manual_seed(state.next_epoch)
        _, targets = self.trainer.learn(rng)
        state.next_epoch += 1
        return targets

    def _flops(self, config: Json) -> float:
        """Operations of the matrix products for one target, forward and backward (3 x forward).

        12 d^2 a layer for the blocks, d for each item of the softmax, and attention over half of
        the mean window on average; two operations for each multiply-add.
        """
        dim, layers = config["dim"], config["layers"]
        lengths = np.minimum(self.split.train.lengths - 1, config["max_len"])
        window = float((lengths**2).sum() / lengths.sum())  # as an event sees it
        blocks = layers * (12 * dim**2 + dim * window)
        return 6 * (blocks + dim * self.split.items)


if __name__ == "__main__":
    serve(ForetastePeer(), ("matmul",))
