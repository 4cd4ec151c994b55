"""A client of Flower as people write it: one user, a network, an optimiser, a loop."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from foretaste.data.split import Split, split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection
from foretaste.federated.core.local_items import local_items, local_windows
from foretaste.federated.core.randomness import hashed, user_keys
from foretaste.federated.fedavg import TABLE
from foretaste.recommenders.core.sequence import Histories
from foretaste.recommenders.sasrec import SASRec

MODEL = {"dim": 32, "max_length": 50, "window": 50, "layers": 2, "heads": 2}
LOCAL: dict[str, Any] = {"learning_rate": 1e-3, "negatives": 256, "clip": 5.0}


class PlainClient:
    """What a client of Flower does as people write it: a network, an optimiser, a loop."""

    def __init__(self, data: Split, dropout: float = 0.2) -> None:
        """The data of all clients; each call trains one."""
        self.data, self.model = data, SASRec(**MODEL, dropout=dropout)
        self.users = np.flatnonzero(data.train.lengths > 1)

    def train(
        self, weights: dict[str, np.ndarray], client: int, epochs: int
    ) -> dict[str, np.ndarray]:
        """The weights after local training of the rows that the user touches, and all others."""
        row = self.users[[client]]
        history = self.data.train.take(row)
        draws = hashed(user_keys(self.data.users[row]), 0, 1)
        items = local_items(history, draws, LOCAL["negatives"], self.data.items)
        windows = local_windows(history, items.rows, MODEL["max_length"], 4)
        network = self.model._network(items.rows.shape[1])
        rows = torch.from_numpy(items.rows[0])
        state = {name: torch.from_numpy(one) for name, one in weights.items()}
        with torch.no_grad():
            for name, one in network.named_parameters():
                one.copy_(state[name][rows] if name == TABLE else state[name])
        self._loop(network, windows, torch.from_numpy(items.correction[0]), epochs)
        found = {name: one.detach().numpy() for name, one in network.named_parameters()}
        table = weights[TABLE].copy()
        table[items.rows[0]] = found[TABLE]
        return {**found, TABLE: table}

    def _loop(
        self, network: torch.nn.Module, windows: Any, correction: torch.Tensor, epochs: int
    ) -> None:
        optimizer = torch.optim.Adam(network.parameters(), lr=LOCAL["learning_rate"])
        read = torch.from_numpy(windows.items[0]), torch.from_numpy(windows.lengths[0])
        targets = torch.from_numpy(windows.targets[0]).flatten()
        network.train()
        for _ in range(epochs):
            optimizer.zero_grad()
            hidden = network(Histories(*read, None)).flatten(0, 1)
            logits = hidden @ network.items.weight.T + correction  # type: ignore[union-attr]
            F.cross_entropy(logits, targets, ignore_index=-1).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), LOCAL["clip"])
            optimizer.step()


@lru_cache(maxsize=1)
def plain_client() -> PlainClient:
    """That of the benchmark; a worker reads the data once."""
    return PlainClient(split(load_dataset(DataSection())))
