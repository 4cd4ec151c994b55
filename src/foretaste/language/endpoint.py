"""Vectors of texts from any OpenAI-compatible endpoint (vLLM, llama-server, Ollama, hosted)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from foretaste.language.asking import Asker, Endpoint, EndpointError

LARGEST_ANSWER = 256
"""Megabytes of one answer; a thousand vectors of 10,000 numbers are fewer."""


class EndpointConfig(Endpoint):
    """An endpoint that answers ``POST {url}/embeddings``; see ``Endpoint`` for what all have.

    Attributes:
        dimensions: ask for so many numbers a vector, where the model can.
        batch_texts: texts of one request.
        max_characters: of a text that are sent.
    """

    kind: Literal["endpoint"] = "endpoint"
    dimensions: int | None = Field(default=None, ge=1)
    batch_texts: int = Field(default=64, ge=1, le=2_048)
    max_characters: int = Field(default=8_000, ge=1)


class EmbeddingEndpoint:
    """An endpoint that is asked batch by batch. Its vectors are scaled to length 1."""

    def __init__(self, config: EndpointConfig, *, pause: float = 1.0) -> None:
        """Nothing is asked yet. ``pause``: seconds before the second try, doubled each time."""
        self.config = config
        self.batch_texts, self.max_characters = config.batch_texts, config.max_characters
        self.identity = (
            f"endpoint {config.url} {config.model} {config.dimensions} {config.max_characters}"
        )
        self._asker = Asker(config, "embeddings", "embeddings", largest=LARGEST_ANSWER, pause=pause)

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors float32 ``[texts, D]`` of length 1.

        Raises:
            EndpointError: when the endpoint cannot be reached, refuses, or answers something else.
        """
        asked: dict[str, Any] = {"model": self.config.model, "input": list(texts)}
        asked["encoding_format"] = "float"
        if self.config.dimensions is not None:
            asked["dimensions"] = self.config.dimensions
        vectors = _vectors(self._asker.post(asked), len(texts), self.config.url)
        # Squares of numbers that are huge or tiny are not numbers of this width any more.
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        vectors = vectors / np.where(largest > 0, largest, 1)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _vectors(content: bytes, count: int, place: str) -> np.ndarray:
    """The vectors of an answer in the order of the question, float64."""
    try:
        lines = sorted(json.loads(content)["data"], key=lambda line: line["index"])
        if [line["index"] for line in lines] != list(range(count)):
            raise ValueError(f"{len(lines)} vectors for {count} texts")
        vectors = np.array([line["embedding"] for line in lines], np.float64)
        if vectors.ndim != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
            raise ValueError("vectors that are not rows of finite numbers")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise EndpointError(
            f"{place}: the answer is not that of an embeddings endpoint "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}). Check the address."
        ) from error
    return vectors
