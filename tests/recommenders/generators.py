"""Small generators for tests, and what their answers must equal."""

from __future__ import annotations

from typing import Any

import torch

from foretaste.codes.opq import OPQConfig
from foretaste.codes.rqkmeans import RQKMeansConfig
from foretaste.data.split import Split
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.coding import CodingConfig
from foretaste.recommenders.core.generator import Generator
from foretaste.recommenders.core.registry import find

SMALL: dict[str, Any] = {
    "dim": 16,
    "max_length": 10,
    "decoder_layers": 1,
    "layers": 1,
    "source_dim": 8,
    "beams": 8,
}
TRAIN = {"epochs": 2, "batch_tokens": 128, "learning_rate": 1e-2, "validate_queries": 20}

SLOWLY = {"learning_rate": 3e-3, "schedule": "cosine", "epochs": 60, "validate_every": 60}
"""Training to the end of what is there to be learnt."""


def generator(name: str, size: int = 6, **parameters: Any) -> Generator:
    """An unfitted one, with ``size`` codes a level."""
    kind = find(name)
    # Residual codes of k-means for S2GR too: its own are learnt by gradient, which takes longer.
    tokenizer = (OPQConfig if name == "mdgr" else RQKMeansConfig)(size=size)
    stages: dict[str, Any] = (
        {"warm_up": 1, "warm_beams": 8} if name == "mdgr" else {}
    )  # the longer way to a list
    wanted = SMALL | stages | {"codes": CodingConfig(tokenizer=tokenizer), "train": TRAIN}
    made = kind(**(wanted | parameters))
    assert isinstance(made, Generator)
    return made


def fitted(name: str, split: Split, **parameters: Any) -> Generator:
    """One that has learnt a little; no longer in training."""
    made = generator(name, **parameters)
    made.fit(split, RunContext(seed=1))
    made.network.eval()
    return made


def lost(model: Generator, history: list[int], item: int) -> float:
    """What the training loss says of one item after one history, without what teaches thoughts."""
    items = torch.tensor([history])
    targets = torch.full_like(items, -1)
    targets[0, -1] = item
    with torch.no_grad():
        return float(model.network.loss(items, targets, 1.0))


def small_codes(name: str) -> dict[str, Any]:
    """Parameters of a model that writes codes: few of them, quickly learnt."""
    if not issubclass(find(name), Generator):
        return {}
    codes = find(name).Config.model_fields["codes"].default
    known = type(codes.tokenizer).model_fields
    small = {key: value for key, value in {"size": 8, "steps": 60}.items() if key in known}
    coding = codes.model_copy(update={"tokenizer": codes.tokenizer.model_copy(update=small)})
    return {"codes": coding, "decoder_layers": 1, "source_dim": 8, "clusters": 3}
