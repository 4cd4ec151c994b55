"""A process that measures RecTools' own SASRecModel; run it in the environment of rectools.txt.

Model, loader, Lightning trainer and module, recommend and metric code are RecTools'; its normal
way is one row a user: the last max_len + 1 training items, a target at every position but the
first. Items that occur in no such row are unknown to it and cannot be recommended.
"""

import platform
import time
from copy import deepcopy
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import NDCG, HitRate, calc_metrics
from rectools.models import SASRecModel
from wire import Feed, Json, read_sequences, serve

K = 10
# RecTools' NDCG divides by the gain of ten hits unless told to divide by the achievable gain,
# which with one held-out item is the usual 1 / log2(rank + 1).
METRICS = {f"hr@{K}": HitRate(k=K), f"ndcg@{K}": NDCG(k=K, divide_by_achievable=True)}
FROM_END = {"test": 0, "valid": 1}


def count_targets(batch: dict[str, torch.Tensor]) -> int:
    """Positions the loss is computed on: those whose target is not padding."""
    return int((batch["y"] != 0).sum())


class RecToolsPeer:
    """RecTools' SASRec with full softmax loss, on one dataset at a time."""

    def load(self, data: str, config: Json) -> Json:
        """Build datasets, loader and model; "seconds" is RecTools' part of that."""
        torch.set_num_threads(config["threads"])
        frame = read_sequences(data).rename(
            columns={"user_id": Columns.User, "item_id": Columns.Item}
        )
        frame[Columns.Datetime] = pd.to_datetime(frame["position"], unit="s")
        frame[Columns.Weight] = 1.0
        pytorch_lightning.seed_everything(config["seed"])

        start = time.perf_counter()
        self.datasets = {
            part: Dataset.construct(_interactions(frame[frame["from_end"] > from_end]))
            for part, from_end in FROM_END.items()
        }
        train = Dataset.construct(_interactions(frame[frame["from_end"] > 1]))
        options: Json = {
            "n_factors": config["dim"],
            "n_blocks": config["layers"],
            "n_heads": config["heads"],
            "session_max_len": config["max_len"],
            "dropout_rate": config["dropout"],
            "lr": config["lr"],
            "batch_size": config.get("batch_size", 128),
            "loss": "softmax",
        }
        self.model = SASRecModel(**(options | config["extra"]))
        # What fit_partial does before its first epoch, with the loader kept open by the feed.
        self.model._build_model_from_dataset(train)
        self.model.fit_trainer = deepcopy(self.model._trainer)
        self.model.is_fitted = True
        loader = self.model.data_preparator.get_dataloader_train()
        seconds = time.perf_counter() - start

        self.feed = Feed(loader, count_targets)
        self.held_out = {
            part: _interactions(frame[frame["from_end"] == from_end])
            for part, from_end in FROM_END.items()
        }
        return {
            "versions": {
                "rectools": version("rectools"),
                "pytorch-lightning": version("pytorch-lightning"),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "users": frame[Columns.User].nunique(),
            "items": len(self.model.data_preparator.get_known_item_ids()),
            "batches": len(loader),
            "parameters": sum(p.numel() for p in self.model.torch_model.parameters()),
            "seconds": seconds,
        }

    def train(self, seconds: float) -> Json:
        """Train on for that long with RecTools' Lightning trainer; no validation runs."""
        return self._train(seconds)

    def train_epoch(self) -> Json:
        """Train one whole epoch, timed the same way."""
        return self._train(None)

    def _train(self, seconds: float | None) -> Json:
        window = self.feed.window(seconds)
        trainer: Any = self.model.fit_trainer
        self.model.lightning_model.train()
        done = trainer.fit_loop.epoch_progress.current.ready
        trainer.fit_loop.max_epochs = trainer.fit_loop.min_epochs = done + 1
        trainer.fit(self.model.lightning_model, window)
        return {
            "targets": window.targets,
            "seconds": window.seconds,
            "epochs": self.feed.epochs,
            "loss": float(trainer.callback_metrics[self.model.train_loss_name]),
        }

    def evaluate(self, masked: bool, part: str, seconds_only: bool = False) -> Json:
        """Full-catalog recommend(k=10) and calc_metrics; the seconds hold both.

        masked=true is filter_viewed: everything the user had before the held-out item.
        """
        held_out = self.held_out[part]
        users = held_out[Columns.User].to_numpy()
        start = time.perf_counter()
        table = self.model.recommend(
            users=users,
            dataset=self.datasets[part],
            k=K,
            filter_viewed=masked,
            on_unsupported_targets="ignore",
        )
        metrics = calc_metrics(METRICS, table, held_out)
        seconds = time.perf_counter() - start
        answer: Json = {"users": len(users), "seconds": seconds}
        return answer if seconds_only else answer | {"metrics": _plain(metrics)}

    def score_metrics(self, scores: str, targets: str) -> Json:
        """Rank given scores with torch.topk and put the table through calc_metrics.

        "seconds" holds ranking, table and metrics, not reading; "metric_seconds" only the last.
        """
        given, wanted = torch.from_numpy(np.load(scores)), np.load(targets)
        users = np.arange(len(wanted))
        held_out = pd.DataFrame({Columns.User: users, Columns.Item: wanted})
        start = time.perf_counter()
        top = torch.topk(given, K, dim=1).indices.numpy()
        table = pd.DataFrame(
            {
                Columns.User: np.repeat(users, K),
                Columns.Item: top.ravel(),
                Columns.Rank: np.tile(np.arange(1, K + 1), len(users)),
            }
        )
        ranked = time.perf_counter()
        metrics = calc_metrics(METRICS, table, held_out)
        end = time.perf_counter()
        return {
            "users": len(users),
            "seconds": end - start,
            "metric_seconds": end - ranked,
            "metrics": _plain(metrics),
        }


def _interactions(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]]


def _plain(metrics: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


if __name__ == "__main__":
    serve(RecToolsPeer())
