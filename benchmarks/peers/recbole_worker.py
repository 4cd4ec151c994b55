"""A process that measures RecBole's own SASRec; run it in the environment of recbole.txt.

Model, loader, optimiser, training step, evaluation and metric code are RecBole's; its normal way
is one training row for each prefix of a user's history, cut to the last max_len items. Its
metrics are taken before it rounds them (it would keep four decimals).

Importing any sequential model of RecBole 1.2.1 switches on torch's anomaly detection for the
whole process (its sine.py does), which checks every gradient for NaN and costs training time. The
config key "anomaly" leaves it on, as RecBole's users have it (true), or switches it off (false).
"""

import contextlib
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.evaluator import base_metric
from recbole.model.sequential_recommender.sasrec import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed
from wire import Feed, Json, read_sequences, serve

K = 10
FROM_END = {"test": 0, "valid": 1}


def unrounded(self: Any, metric: str, value: np.ndarray) -> dict[str, float]:
    """Stand in for RecBole's TopkMetric.topk_result, which rounds the same means."""
    means = value.mean(axis=0)
    return {f"{metric}@{k}": float(means[k - 1]) for k in self.topk}


def load_trusted(*args: Any, **options: Any) -> Any:
    """Stand in for torch.load with the default of RecBole's time: its checkpoints are pickles."""
    return TORCH_LOAD(*args, **({"weights_only": False} | options))


TORCH_LOAD = torch.load
torch.load = load_trusted
base_metric.TopkMetric.topk_result = unrounded


class RecBolePeer:
    """RecBole's SASRec with full softmax cross entropy, on one dataset at a time."""

    def __init__(self, home: Path) -> None:
        """Paths in commands are relative to home."""
        self.home = home

    def load(self, data: str, config: Json) -> Json:
        """Build dataset, loaders, model and trainer; "seconds" is RecBole's part of that."""
        torch.set_num_threads(config["threads"])
        torch.autograd.set_detect_anomaly(config.get("anomaly", True))
        frame = read_sequences(self.home / data)
        options: Json = {
            "data_path": str(Path.cwd()),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "MAX_ITEM_LIST_LENGTH": config["max_len"],
            "hidden_size": config["dim"],
            "inner_size": 4 * config["dim"],
            "n_layers": config["layers"],
            "n_heads": config["heads"],
            "hidden_dropout_prob": config["dropout"],
            "attn_dropout_prob": config["dropout"],
            "learning_rate": config["lr"],
            "train_batch_size": config.get("batch_size", 2048),
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "group_by": "user",
                "order": "TO",
                "mode": "full",
            },
            "metrics": ["Hit", "NDCG"],
            "topk": [K],
            "valid_metric": f"NDCG@{K}",
            "use_gpu": False,
            "seed": config["seed"],
            "show_progress": False,
        }
        Path("peer").mkdir(exist_ok=True)
        frame.rename(
            columns={
                "user_id": "user_id:token",
                "item_id": "item_id:token",
                "position": "timestamp:float",
            }
        ).drop(columns="from_end").to_csv("peer/peer.inter", sep="\t", index=False)

        start = time.perf_counter()
        self.config = Config(model="SASRec", dataset="peer", config_dict=options | config["extra"])
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.dataset = create_dataset(self.config)
        self.train_data, *held_out = data_preparation(self.config, self.dataset)
        self.parts = dict(zip(("valid", "test"), held_out, strict=True))
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.model = SASRec(self.config, self.train_data._dataset).to(self.config["device"])
        self.trainer = Trainer(self.config, self.model)
        self.trainer.eval_collector.data_collect(self.train_data)
        seconds = time.perf_counter() - start

        self.feed = Feed(self.train_data, len)
        self._index_histories(frame)
        return {
            "versions": {
                "recbole": version("recbole"),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "anomaly": torch.is_anomaly_enabled(),
            "users": self.dataset.user_num - 1,
            "items": self.dataset.item_num - 1,
            "batches": len(self.train_data),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": seconds,
        }

    def _index_histories(self, frame: pd.DataFrame) -> None:
        """Keep each user's items in order, by RecBole's ids, for the masked evaluation."""
        users = self.dataset.token2id("user_id", frame["user_id"].to_numpy())
        items = self.dataset.token2id("item_id", frame["item_id"].to_numpy())
        order = np.argsort(users, kind="stable")
        self.history = items[order]
        self.bounds = np.searchsorted(users[order], np.arange(self.dataset.user_num + 1))

    def _seen(self, interaction: Interaction, from_end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and columns of all that the users of a batch had before the held-out item."""
        users = interaction["user_id"].numpy()
        seen = [
            self.history[self.bounds[user] : self.bounds[user + 1] - 1 - from_end] for user in users
        ]
        rows = np.repeat(np.arange(len(users)), [len(items) for items in seen])
        return torch.from_numpy(rows), torch.from_numpy(np.concatenate(seen))

    def train(self, seconds: float) -> Json:
        """Train on for that long with RecBole's own epoch loop; a target is a prefix row."""
        return self._train(seconds)

    def train_epoch(self) -> Json:
        """Train one whole epoch, timed the same way."""
        return self._train(None)

    def _train(self, seconds: float | None) -> Json:
        window = self.feed.window(seconds)
        loss = self.trainer._train_epoch(window, 0)
        return {
            "targets": window.targets,
            "seconds": window.seconds,
            "epochs": self.feed.epochs,
            "loss": loss,
        }

    def evaluate(self, masked: bool, part: str, seconds_only: bool = False) -> Json:
        """Full-catalog Trainer.evaluate: the seconds hold loading, scores, ranking and metrics.

        RecBole masks nothing for sequential models; for masked=true each batch is given the
        history index that its trainer applies for the other models (all items seen before).
        """
        plain = Trainer._full_sort_batch_eval
        from_end = FROM_END[part]

        def with_history(batch: tuple[Any, ...]) -> tuple[Any, ...]:
            interaction, _, rows, targets = batch
            seen = self._seen(interaction, from_end)
            return plain(self.trainer, (interaction, seen, rows, targets))

        if masked:
            self.trainer._full_sort_batch_eval = with_history
        try:
            start = time.perf_counter()
            result = self.trainer.evaluate(self.parts[part], load_best_model=False)
            seconds = time.perf_counter() - start
        finally:
            self.trainer.__dict__.pop("_full_sort_batch_eval", None)
        answer: Json = {"users": len(self.parts[part]._dataset), "seconds": seconds}
        return answer if seconds_only else answer | {"metrics": _named(result)}

    def score_metrics(self, scores: str, targets: str) -> Json:
        """Collect given scores in batches and evaluate them; the seconds hold both, not reading.

        Every column of the scores is an item, and column 0 is no padding.
        """
        table = torch.from_numpy(np.load(self.home / scores))
        wanted = torch.from_numpy(np.load(self.home / targets))
        size = self.config["eval_batch_size"]
        start = time.perf_counter()
        for rows, positives in zip(table.split(size), wanted.split(size), strict=True):
            self.trainer.eval_collector.eval_batch_collect(
                rows, None, torch.arange(len(rows)), positives
            )
        struct = self.trainer.eval_collector.get_data_struct()
        result = self.trainer.evaluator.evaluate(struct)
        seconds = time.perf_counter() - start
        return {"users": len(wanted), "seconds": seconds, "metrics": _named(result)}


def _named(result: dict[str, float]) -> dict[str, float]:
    return {name.replace("hit@", "hr@"): value for name, value in result.items()}


def main() -> None:
    """Serve in a scratch folder, where RecBole leaves its logs and its copy of the data."""
    peer = RecBolePeer(Path.cwd())
    with tempfile.TemporaryDirectory(prefix="recbole-peer-") as scratch, contextlib.chdir(scratch):
        serve(peer)


if __name__ == "__main__":
    main()
