"""What every tokenizer is: it learns codebooks from item vectors and gives every item codes."""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from foretaste.codes.books import Books
from foretaste.codes.checking import build_config, check_vectors, checked_ids
from foretaste.codes.dealing import check_bits, deal, free_ranks
from foretaste.codes.table import FIT_AGAIN, Codes
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.progress import Progress, Silent
from foretaste.storage import read_arrays_about, write_arrays
from foretaste.suggesting import nearest

if TYPE_CHECKING:
    from foretaste.codes.report import CodeReport

TOKENIZERS = ("rqkmeans", "rqvae", "coba", "opq")
"""Names of tokenizers; a file of the name holds the class."""
ITEMS_AT_ONCE = 16_384
"""Item vectors worked on together when a whole catalog gets its codes."""


class TokenizerConfig(BaseModel):
    """What every tokenizer has. Unknown keys are errors.

    Attributes:
        levels: codes of an item.
        size: codes to choose from at each level.
        unique: how items whose nearest codes are the same are told apart. ``nearest``: the one
            that is nearest keeps them, the others move to the nearest free codes, so that
            ``levels`` stays. ``extra``: a further level counts them (TIGER); where more than
            ``size`` share their codes, the rest moves.
        fit_items: the codebooks are learnt from so many items at most, drawn at random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    levels: int = Field(default=3, ge=1, le=64)
    size: int = Field(default=256, ge=2, le=65_536)
    unique: Literal["nearest", "extra"] = "nearest"
    fit_items: int = Field(default=131_072, ge=1)

    @property
    def code_levels(self) -> int:
        """Codes of an item, the extra level counted."""
        return self.levels + (self.unique == "extra")

    @model_validator(mode="after")
    def _codes_fit(self) -> TokenizerConfig:
        check_bits((self.size,) * self.code_levels)
        return self


@dataclass(frozen=True)
class FitContext:
    """How to learn, apart from what is learnt.

    Attributes:
        seed: of every random choice; the same seed gives the same codes on the same machine.
        device: ``auto`` (an accelerator if there is one), ``cpu``, ``cuda`` or ``mps``.
        progress: who is told how far the work is.
        place: what comes before a field's name in messages, such as ``codes.tokenizer.``.
    """

    seed: int = 0
    device: str = "auto"
    progress: Progress = field(default_factory=Silent)
    place: str = ""

    @property
    def torch_device(self) -> torch.device:
        """The device itself.

        Raises:
            InputError: when it is not here, or unknown.
        """
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        if self.device == "auto":
            return torch.device("cuda" if cuda else "cpu")
        if not {"cpu": True, "cuda": cuda, "mps": mps}.get(self.device):
            raise InputError(f"--device {self.device}: there is none here. Choose cpu or auto.")
        return torch.device(self.device)


class FitSeconds(NamedTuple):
    """What a fit took.

    Attributes:
        learning: the codebooks, from at most ``fit_items`` items.
        coding: giving every item codes of its own; grows with the items.
    """

    learning: float
    coding: float


class Tokenizer(ABC):
    """Learns codebooks and gives every item of a catalog codes of its own.

    A subclass names itself, declares its ``Config`` and writes ``_fit``, which sets ``books``, and,
    where its codebooks live in another space than the vectors, ``_latent`` and ``_restored``. All
    else is done here: checks, streaming, collisions, new items, files.
    """

    name: ClassVar[str]
    Config: ClassVar[type[TokenizerConfig]] = TokenizerConfig
    reads_histories: ClassVar[bool] = False
    """Whether ``sequences`` are learnt from."""
    books: Books
    width: int

    def __init__(self, config: TokenizerConfig | None = None, **parameters: Any) -> None:
        """Parameters come as a ``Config`` or, by name, as keywords.

        Raises:
            InputError: for a parameter that does not exist or a value that is not allowed.
        """
        if config is not None and parameters:
            raise InputError(f"{self.name}: give a Config or keywords, not both.")
        self.config: Any = config or build_config(self.Config, parameters, self.name)
        self.codes: Codes | None = None
        self.seconds: FitSeconds | None = None  # a loaded tokenizer does not know
        self.context = FitContext()

    @abstractmethod
    def _fit(self, points: Tensor, context: FitContext) -> None:
        """Learn from vectors ``[n, D]`` on the context's device; set ``books``."""

    def _targets(self, vectors: np.ndarray, sequences: Sequences | None) -> np.ndarray:
        """What is coded: the vectors themselves, unless a subclass smooths them first."""
        del sequences
        return vectors

    def _latent(self, points: Tensor) -> Tensor:
        """Vectors ``[n, D]`` in the space of the codebooks."""
        return points

    def _restored(self, latent: Tensor) -> Tensor:
        """What ``_latent`` made, as near to the vectors as can be."""
        return latent

    def fit(
        self,
        vectors: np.ndarray,
        *,
        item_ids: Sequence[str] | pl.Series | None = None,
        sequences: Sequences | None = None,
        context: FitContext | None = None,
    ) -> Codes:
        """Learn the codebooks and give every item its codes.

        Args:
            vectors: float ``[items, D]``, in memory or mapped from a file: it is read in parts.
            item_ids: of the catalog; numbers when left out.
            sequences: training histories over the same item numbers, for tokenizers that use what
                is chosen together. Nothing from after a split's cut may be in them.
            context: seed, device, progress.

        Returns:
            The codes, which are kept as ``codes`` too.

        Raises:
            InputError: for vectors that are not finite, fewer items than codes, repeated items,
                more items than the codes can tell apart, or training that came to no numbers.
        """
        context = context or FitContext()
        ids = checked_ids(item_ids, len(vectors))
        check_vectors(vectors, f"{self.name}: ")
        if len(vectors) < self.config.size:
            raise InputError(
                f"{self.name}: {len(vectors):,} items are fewer than the {self.config.size} codes "
                f"of a level. Lower {context.place}size."
            )
        self.context, self.width, self.codes = context, vectors.shape[1], None
        begin = time.perf_counter()
        targets = self._targets(vectors, sequences)
        self._fit(self._drawn(targets), context)
        learnt = time.perf_counter()
        self.codes = self._dealt(targets, ids)
        self.seconds = FitSeconds(learnt - begin, time.perf_counter() - learnt)
        return self.codes

    def assign(self, vectors: np.ndarray, codes: Codes | None = None) -> np.ndarray:
        """Codes int32 ``[n, L]`` for new items; nothing is learnt, and no old item moves.

        Args:
            vectors: float ``[n, D]`` from the same source as those of ``fit``.
            codes: the table that the new codes must not collide with; by default that of ``fit``.
                ``Codes.with_items`` makes a table with the new ones.

        Raises:
            InputError: for vectors that are not finite or of another width, or when no code is
                free any more.
        """
        codes = self._fitted() if codes is None else codes
        check_vectors(vectors, f"{self.name}: new items: ", width=self.width)
        return self._unique(vectors, *self._nearest(vectors), codes)[0]

    def reconstruct(self, table: np.ndarray) -> np.ndarray:
        """The vectors float32 ``[n, D]`` that codes int ``[n, L]`` stand for."""
        self._fitted()
        parts = []
        base = torch.from_numpy(np.ascontiguousarray(table[:, : len(self.books.books)], np.int64))
        with torch.no_grad():
            for part in base.split(ITEMS_AT_ONCE):
                latent = self.books.decode(part.to(self.context.torch_device))
                parts.append(self._restored(latent).float().cpu())
        return torch.cat(parts).numpy()

    def report(
        self, vectors: np.ndarray, *, others: Sequence[np.ndarray] = (), seed: int = 0
    ) -> CodeReport:
        """How good the codes are; see ``foretaste.codes.report``."""
        from foretaste.codes.report import report_on

        return report_on(self, vectors, others=others, seed=seed)

    def save(self, path: Path | str) -> None:
        """Write codebooks, codes and what new items need to one safetensors file."""
        arrays, about = self._fitted().to_arrays()
        arrays |= {f"tokenizer.{name}": value for name, value in self._arrays().items()}
        about |= {
            "tokenizer": self.name,
            "config": self.config.model_dump(mode="json"),
            "width": self.width,
            "seed": self.context.seed,
        }
        write_arrays(Path(path), arrays, about)

    @staticmethod
    def load(path: Path | str, device: str = "auto") -> Tokenizer:
        """Read what ``save`` wrote.

        Raises:
            InputError: when it is missing, damaged, or a table of codes without a tokenizer.
        """
        arrays, about = read_arrays_about(Path(path), again=FIT_AGAIN)
        if "tokenizer" not in about:
            raise InputError(f"{path}: codes without a tokenizer. Give the file that it saved.")
        kind = find(str(about["tokenizer"]))
        own = {
            name.removeprefix("tokenizer."): value
            for name, value in arrays.items()
            if name.startswith("tokenizer.")
        }
        try:
            tokenizer = kind(build_config(kind.Config, about["config"], str(path)))
            tokenizer.codes = Codes.from_arrays(arrays, about, str(path))
            tokenizer.context = FitContext(int(about["seed"]), device)
            tokenizer.width = int(about["width"])
            tokenizer._set_arrays(own)
        except InputError:
            raise
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path}: not a whole tokenizer ({reason}). Fit it again.") from error
        return tokenizer

    def again(self) -> Self:
        """A tokenizer of the same configuration that has learnt nothing yet."""
        return type(self)(self.config)

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """What new items need, besides the codebooks of ``codes``."""

    @abstractmethod
    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Make ``books`` and the rest from ``codes`` and these arrays."""

    def _fitted(self) -> Codes:
        if self.codes is None:
            raise InputError(f"{self.name}: not fitted yet. Call fit first.")
        return self.codes

    def _drawn(self, vectors: np.ndarray) -> Tensor:
        """At most ``fit_items`` of the vectors, on the device."""
        if len(vectors) > self.config.fit_items:
            rng = np.random.default_rng(self.context.seed)
            chosen = np.sort(rng.permutation(len(vectors))[: self.config.fit_items])
            vectors = vectors[chosen]
        return self._tensor(vectors)

    def _tensor(self, vectors: np.ndarray) -> Tensor:
        whole = np.array(vectors, np.float32, order="C")  # a copy: what is given stays as it is
        return torch.from_numpy(whole).to(self.context.torch_device)

    def _nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nearest codes int32 ``[n, levels]`` and their costs ``[n]``, part by part."""
        levels = len(self.books.books)
        codes, costs = np.empty((len(vectors), levels), np.int32), np.empty(len(vectors))
        with torch.no_grad(), self.context.progress.task("codes", len(vectors)) as task:
            for first in range(0, len(vectors), ITEMS_AT_ONCE):
                part = slice(first, first + ITEMS_AT_ONCE)
                found = self.books.encode(self._latent(self._tensor(vectors[part])))
                codes[part] = found.codes[:, 0].cpu().numpy()
                costs[part] = found.costs[:, 0].cpu().numpy()
                task.advance(len(codes[part]))
        if not np.isfinite(costs).all():
            way = "Scale the vectors."
            if "learning_rate" in type(self.config).model_fields:
                way = f"Lower {self.context.place}learning_rate."
            raise InputError(f"{self.name}: training came to no numbers. {way}")
        return codes, costs

    def _dealt(self, vectors: np.ndarray, ids: pl.Series) -> Codes:
        nearest, costs = self._nearest(vectors)
        table, sizes = self._unique(vectors, nearest, costs, None)
        books = tuple(book.detach().float().cpu().numpy() for book in self.books.books)
        return Codes(ids, table, sizes, nearest, books, self.books.ordered)

    def _unique(
        self, vectors: np.ndarray, nearest: np.ndarray, costs: np.ndarray, codes: Codes | None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """Codes that no two items share, beside those of ``codes``, and the sizes of the levels."""
        base = tuple(len(book) for book in self.books.books)
        places = 1
        if codes is not None:
            places = int(np.prod(codes.sizes[len(base) :], dtype=np.int64))
        elif self.config.unique == "extra":
            shared = np.unique(nearest, axis=0, return_counts=True)[1]
            places = int(min(shared.max(), self.config.size))
        with torch.no_grad():
            dealt = deal(
                nearest,
                costs,
                base,
                lambda items: self._latent(self._tensor(vectors[items])),
                self.books.ways,
                places=places,
                taken=None if codes is None else codes.table[:, : len(base)],
            )
        if self.config.unique != "extra":
            return dealt.table, base
        ranks = dealt.ranks
        if codes is not None:
            ranks = free_ranks(dealt.table, ranks, codes.table, base, places)
        return np.column_stack([dealt.table, ranks.astype(np.int32)]), (*base, places)


def find(name: str) -> type[Tokenizer]:
    """The tokenizer of this name.

    Raises:
        InputError: when there is none, with the nearest name.
    """
    if name not in TOKENIZERS:
        raise InputError(f'no tokenizer is called "{name}"{nearest(name, TOKENIZERS)}')
    module = importlib.import_module(f"foretaste.codes.{name}")
    return next(
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Tokenizer) and vars(kind).get("name") == name
    )
