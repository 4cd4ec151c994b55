"""TF-IDF and SVD (latent semantic analysis): vectors of short texts without any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from foretaste.errors import InputError
from foretaste.progress import Progress, Silent

# Scripts that write without spaces are read letter by letter, others word by word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TERM = rf"[{_UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}--[{_UNSPACED}]]+"

WORD = r"\S*[\p{L}\p{M}\p{N}]\S*"
"""What is between blanks and has something in it that is read."""

TEXTS_AT_ONCE = 50_000
"""Texts whose terms are held at a time: about 100 MB for titles."""


class TfidfConfig(BaseModel):
    """How texts become vectors by TF-IDF and SVD.

    Attributes:
        dim: width of the vectors at most; fewer when the texts have fewer directions.
        min_count: terms in fewer texts are left out, unless no term would remain.
        max_terms: the terms in most texts are kept.
        ngrams: 1 for words alone, 2 for pairs of neighbouring words too.
        fit_texts: the terms and directions are learnt from so many texts at most, drawn at random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["tfidf"] = "tfidf"
    dim: int = Field(default=128, ge=1)
    min_count: int = Field(default=2, ge=1)
    max_terms: int = Field(default=50_000, ge=1)
    ngrams: Literal[1, 2] = 2
    fit_texts: int = Field(default=200_000, ge=1)


class Tfidf(NamedTuple):
    """What was learnt from texts: which terms count, how much, and in which directions.

    A term's weight is ``(1 + log count) * (log((1 + n) / (1 + texts with it)) + 1)``; a text's
    weights are scaled to length 1, projected, and scaled to length 1 again. A text without a
    known term, the empty one too, has the zero vector.

    Attributes:
        terms: String ``[V]``, sorted.
        weights: float32 ``[V]``, the second factor above.
        directions: float32 ``[V, D]``, right singular vectors, the strongest first.
        ngrams: as in the configuration.
    """

    terms: pl.Series
    weights: np.ndarray
    directions: np.ndarray
    ngrams: int

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        config: TfidfConfig | None = None,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Tfidf:
        """Learn from texts, the same from the same texts and seed.

        Raises:
            InputError: when no text has a word.
        """
        config = config or TfidfConfig()
        rng = np.random.default_rng(seed)
        if len(texts) > config.fit_texts:
            drawn = set(rng.permutation(len(texts))[: config.fit_texts].tolist())
            chosen = [text for place, text in enumerate(texts) if place in drawn]
        else:
            chosen = list(texts)
        with (progress or Silent()).task("words", 2) as task:
            terms, spread = _vocabulary(chosen, config)
            weights = np.log((1 + len(chosen)) / (1 + spread)) + 1
            learnt = cls(terms, weights.astype(np.float32), np.zeros((0, 0)), config.ngrams)
            parts = [learnt._weighted(part) for part in _parts(chosen)]
            task.advance()
            directions = _directions(_stacked(parts), config.dim, rng)
            task.advance()
        return learnt._replace(directions=directions)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.directions.shape[1]

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Vectors float32 ``[texts, D]`` of length 1, or 0 where no term is known."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        first = 0
        with (progress or Silent()).task("texts", len(texts)) as task:
            for part in _parts(texts):
                rows = slice(first, first + len(part))
                vectors[rows] = _unit(self._weighted(part) @ self.directions)
                first += len(part)
                task.advance(len(part))
        return vectors

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What ``from_arrays`` needs: numbers only."""
        words = self.terms.to_list()
        content = [word.encode() for word in words]
        return {
            "terms": np.frombuffer(b"".join(content), np.uint8),
            "term_bytes": np.array([len(word) for word in content], np.int64),
            "weights": self.weights,
            "directions": self.directions,
            "ngrams": np.array([self.ngrams]),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Tfidf:
        """What ``to_arrays`` gave.

        Raises:
            KeyError: when an array is missing.
        """
        content, ends = arrays["terms"].tobytes(), np.cumsum(arrays["term_bytes"]).tolist()
        starts = [0, *ends[:-1]]
        words = [content[a:b].decode() for a, b in zip(starts, ends, strict=True)]
        terms = pl.Series("term", words, dtype=pl.String)
        return cls(terms, arrays["weights"], arrays["directions"], int(arrays["ngrams"][0]))

    def _weighted(self, texts: Sequence[str]) -> csr_array:
        """Scaled weights of the known terms, ``[texts, V]``."""
        numbers = pl.DataFrame(
            {"term": self.terms, "column": np.arange(len(self.terms), dtype=np.int64)}
        )
        counted = _counts(texts, self.ngrams).join(numbers, on="term").sort("row", "column")
        columns, count = counted["column"].to_numpy(), counted["count"].to_numpy()
        values = (1 + np.log(count)) * self.weights[columns]
        shape = (len(texts), len(self.terms))
        matrix = csr_array((values, (counted["row"].to_numpy(), columns)), shape=shape)
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
        matrix.data /= np.repeat(lengths, np.diff(matrix.indptr))
        return csr_array(matrix, dtype=np.float32)


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        yield texts[first : first + TEXTS_AT_ONCE]


def _counts(texts: Sequence[str], ngrams: int) -> pl.DataFrame:
    """How often each text has each term: ``row``, ``term``, ``count``."""
    plain = pl.col("text").str.normalize("NFKC").str.to_lowercase()
    words = (
        pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
        .with_row_index("row")
        .select(pl.col("row").cast(pl.Int64), plain.str.extract_all(_TERM).alias("term"))
        .explode("term")
        .drop_nulls()
    )
    terms = [words]
    if ngrams == 2:
        together = pl.col("row") == pl.col("row").shift(-1)
        pair = pl.col("term") + " " + pl.col("term").shift(-1)
        terms.append(words.select("row", pl.when(together).then(pair).alias("term")).drop_nulls())
    return pl.concat(terms).group_by("row", "term").agg(pl.len().alias("count"))


def _vocabulary(texts: Sequence[str], config: TfidfConfig) -> tuple[pl.Series, np.ndarray]:
    """The terms that count, and in how many texts each is."""
    found = [
        _counts(part, config.ngrams).group_by("term").agg(pl.len().alias("texts"))
        for part in _parts(texts)
    ]
    spread = pl.concat(found).group_by("term").agg(pl.col("texts").sum()) if found else None
    if spread is None or spread.is_empty():
        raise InputError(
            f"no word in {len(texts):,} texts: TF-IDF has nothing to learn from. Give items titles "
            "(--items FILE), or use vectors of a trained run."
        )
    often = spread.filter(pl.col("texts") >= config.min_count)
    chosen = often if often.height else spread
    chosen = chosen.sort(pl.col("texts"), "term", descending=[True, False])
    chosen = chosen.head(config.max_terms).sort("term")
    return chosen["term"], chosen["texts"].to_numpy()


def _stacked(parts: list[csr_array]) -> csr_array:
    from scipy.sparse import vstack

    return csr_array(vstack(parts))


def _directions(matrix: csr_array, dim: int, rng: np.random.Generator) -> np.ndarray:
    """The first right singular vectors ``[V, D]`` (Halko, Martinsson, Tropp 2011, algorithm 4.4).

    Directions of no strength are left out; the largest part of each is positive, so that the sign
    does not depend on the machine.
    """
    texts, terms = cast("tuple[int, int]", matrix.shape)
    wanted = min(dim, texts, terms)
    width = min(wanted + 10, texts, terms)
    basis = rng.standard_normal((terms, width)).astype(np.float32)
    for _ in range(4):
        basis = np.linalg.qr(matrix @ basis)[0]
        basis = np.linalg.qr(matrix.T @ basis)[0]
    _, strength, right = np.linalg.svd(np.asarray(matrix @ basis), full_matrices=False)
    strong = strength[:wanted] > 1e-5 * strength[0]
    directions = (basis @ right.T)[:, :wanted][:, strong]
    largest = np.abs(directions).argmax(axis=0)
    sign = np.sign(directions[largest, np.arange(directions.shape[1])])
    return np.ascontiguousarray(directions * sign, dtype=np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-8)
