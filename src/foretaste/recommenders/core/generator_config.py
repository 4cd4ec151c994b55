"""Parameters of recommenders that write semantic IDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from foretaste.recommenders.core.base import ModelConfig
from foretaste.recommenders.core.coding import CodingConfig
from foretaste.recommenders.core.train_config import TrainConfig


class GeneratorTrainConfig(TrainConfig):
    """How a generator is trained: smaller batches, since every event is several codes, and more
    patience, since it learns what is popular first and for longer.
    """

    batch_tokens: int = Field(default=512, ge=1)
    min_epochs: int = Field(default=25, ge=0)
    validate_queries: int = Field(default=2_000, ge=1)


class GeneratorConfig(ModelConfig):
    """What every generator has.

    Attributes:
        dim: width of code and hidden vectors.
        layers: blocks of the encoder.
        decoder_layers: blocks of the decoder.
        heads: attention heads; ``dim`` must be a multiple.
        max_length: events of a history that are read, the last ones.
        dropout: share of hidden values set to zero in training.
        reads: what the encoder reads of an event: ``items``, one vector made of its codes, which is
            faster and was better; or all ``codes`` one after the other, as TIGER's paper does.
        normalise: over what probabilities add up to 1, in training and when asked: all ``codes`` of
            a level, as in the papers, which gives part of them to texts that are no item; or what
            leads to an item of the ``catalog``.
        smoothing: of the labels, within a level; for ``codes``.
        beams: items that are searched for, along as many paths, at most the catalog's; more when a
            longer list is wanted. The default becomes smaller in a smaller catalog.
        source: what codes are made of: the items' ``text``, ``collaborative`` vectors (who chose
            what in train), or ``both``; ``auto`` takes the text alone where items are told in many
            words, both where every other item has some text, else collaborative ones.
        source_dim: numbers of a collaborative vector.
        codes: how items get codes.
        codes_from: a folder that ``foretaste codes fit`` wrote, instead of making codes. It must
            have all items; their titles, where both know them, must be the same.
        train: how the network is trained (``[train]`` of a recipe).
    """

    dim: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=1)
    decoder_layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)
    max_length: int = Field(default=50, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    reads: Literal["codes", "items"] = "items"
    normalise: Literal["codes", "catalog"] = "catalog"
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    beams: int = Field(default=30, ge=1)
    source: Literal["auto", "text", "collaborative", "both"] = "auto"
    source_dim: int = Field(default=64, ge=1)
    codes: CodingConfig = CodingConfig()
    codes_from: Path | None = None
    train: TrainConfig = GeneratorTrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _complete_codes(cls, values: Any) -> Any:
        """A part of ``codes`` may be given; the rest is the model's own default."""
        given = values.get("codes") if isinstance(values, dict) else None
        if not isinstance(given, dict):
            return values
        whole = cls.model_fields["codes"].default.model_dump()
        for name, part in given.items():
            own = whole.get(name)
            same_kind = isinstance(part, dict) and part.get("kind") in (
                None,
                (own or {}).get("kind"),
            )
            whole[name] = own | part if isinstance(own, dict) and same_kind else part
        return values | {"codes": whole}

    @model_validator(mode="after")
    def _heads_divide(self) -> GeneratorConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} must be a multiple of heads = {self.heads}")
        return self

    @model_validator(mode="after")
    def _smooths_codes(self) -> GeneratorConfig:
        if self.smoothing and self.normalise == "catalog":
            raise ValueError('smoothing is over the codes of a level: set normalise = "codes"')
        return self
