"""From texts to vectors, by one of three ways, with what is known already read from disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from foretaste.errors import InputError
from foretaste.language.cache import VectorCache, cache_of, key_of
from foretaste.language.endpoint import EmbeddingEndpoint, EndpointConfig
from foretaste.language.sentence_model import SentenceConfig, SentenceModel
from foretaste.language.tfidf import Tfidf, TfidfConfig
from foretaste.progress import Progress, Silent
from foretaste.storage import CACHE, OFF

TextConfig = Annotated[TfidfConfig | SentenceConfig | EndpointConfig, Field(discriminator="kind")]
"""How texts become vectors; ``kind`` tells which: ``tfidf``, ``sentence`` or ``endpoint``."""

BATCHES_KEPT = 8
"""Batches after which vectors go to disk: what an interrupted embedding loses at most."""


class TextEncoder(Protocol):
    """Something that turns texts into vectors, the same whenever it is asked."""

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Vectors float32 ``[texts, D]`` of length 1; an empty text has the zero vector."""
        ...


class TextModel(Protocol):
    """A model that was trained elsewhere, asked batch by batch."""

    identity: str
    batch_texts: int
    max_characters: int

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors float32 ``[texts, D]`` of texts that are not empty."""
        ...


class ModelEncoder:
    """A model's vectors, each text asked for once, with a cache on disk where one is given."""

    def __init__(
        self, open_model: Callable[[], TextModel], cache: VectorCache | None = None, width: int = 0
    ) -> None:
        """Nothing is opened before the first text.

        Args:
            open_model: gives the model.
            cache: None keeps nothing.
            width: of the vectors; 0 when it is not known before the first of them.
        """
        self.cache = cache
        self._open, self._width = open_model, width

    @cached_property
    def model(self) -> TextModel:
        """The model, opened when it is first asked for."""
        return self._open()

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Vectors float32 ``[texts, D]``; a text of blanks has the zero vector.

        Raises:
            MissingExtraError: when a package is missing.
            InputError: when the model cannot be had or fails, or every text is empty and the width
                of the vectors is not known.
        """
        if not any(text.strip() for text in texts):
            if not self._width:
                raise InputError(f"all {len(texts):,} texts are empty: there is nothing to embed.")
            return np.zeros((len(texts), self._width), np.float32)
        read = [text.strip()[: self.model.max_characters] for text in texts]
        keys = [key_of(self.model.identity, text) if text else b"" for text in read]
        wanted = {key: text for key, text in zip(keys, read, strict=True) if text}
        known = self.cache.get(list(wanted)) if self.cache else {}
        for vector in known.values():
            self._check(len(vector), "in the cache")
        self._add_missing(known, wanted, progress or Silent())
        vectors = np.zeros((len(texts), self._width), np.float32)
        for row, key in enumerate(keys):
            if key:
                vectors[row] = known[key]
        return vectors

    def _add_missing(
        self, known: dict[bytes, np.ndarray], wanted: dict[bytes, str], progress: Progress
    ) -> None:
        """Ask the model for what is not known; texts of like length go together."""
        missing = sorted((key for key in wanted if key not in known), key=lambda k: len(wanted[k]))
        size = BATCHES_KEPT * self.model.batch_texts
        with progress.task("embedding", len(missing)) as task:
            for first in range(0, len(missing), size):
                keys, parts = missing[first : first + size], []
                for place in range(0, len(keys), self.model.batch_texts):
                    some = keys[place : place + self.model.batch_texts]
                    parts.append(self.model.encode_batch([wanted[key] for key in some]))
                    self._check(parts[-1].shape[1], "from the model")
                    task.advance(len(some))
                vectors = np.concatenate(parts)
                if self.cache:
                    self.cache.put(keys, vectors)
                known.update(zip(keys, vectors, strict=True))

    def _check(self, width: int, where: str) -> None:
        self._width = self._width or width
        if width != self._width:
            place = f"{self.cache.path}: " if self.cache else ""
            raise InputError(
                f"{place}vectors of {self._width} numbers, and {where} of {width}, under one name "
                "of a model. Delete the cache, tell the models apart by name, or keep nothing "
                f"({CACHE}={OFF})."
            )


def encoder_for(
    config: TextConfig,
    texts: Sequence[str],
    *,
    cache: Path | str | None = None,
    width: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> TextEncoder:
    """What turns texts into vectors: TF-IDF learnt from ``texts``, or a model, opened when asked.

    Args:
        config: which way, with its settings.
        texts: of the catalog; only TF-IDF learns from them.
        cache: a file for the vectors of models; None for the usual one in the user's cache, and
            ``off`` for none: see ``cache_of``. TF-IDF has none: it is faster than reading.
        width: of a model's vectors, where it is known.
        seed: of the random choices of TF-IDF and SVD.
        progress: who is told.

    Raises:
        InputError: when TF-IDF finds no word in the texts.
    """
    if isinstance(config, TfidfConfig):
        return Tfidf.fit(texts, config, seed=seed, progress=progress)

    def open_model() -> TextModel:
        if isinstance(config, SentenceConfig):
            return SentenceModel(config)
        return EmbeddingEndpoint(config)

    return ModelEncoder(open_model, cache_of(cache), width)


def embed(
    texts: Sequence[str],
    config: TextConfig | None = None,
    *,
    cache: Path | str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Vectors float32 ``[texts, D]`` of length 1; a text without a known word has the zero vector.

    ``encoder_for`` keeps what is needed to embed further texts in the same space, and says what
    ``cache`` may be.

    Raises:
        MissingExtraError: when a package is missing.
        InputError: when no text has a word, or the model fails.
    """
    chosen = config or TfidfConfig()
    encoder = encoder_for(chosen, texts, cache=cache, seed=seed, progress=progress)
    return encoder.encode(texts, progress)
