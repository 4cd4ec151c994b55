"""What every recommender is: a configuration, ``fit``, ``recommend``, ``save`` and ``load``."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError, NotNumbersError
from foretaste.progress import Progress, Silent
from foretaste.recommenders.core.configuring import build_config
from foretaste.recommenders.core.registry import find, register
from foretaste.recommenders.core.results import FitReport, Recommendations
from foretaste.storage import read_arrays, write_arrays, write_whole

if TYPE_CHECKING:
    from torch import Tensor

SCORES_AT_ONCE = 8_000_000
"""Scores held at a time when ranking (32 MB of float32): never users x items."""

Exclude = Literal["seen", "none"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]


class ModelConfig(BaseModel):
    """The parameters of a recommender, and the only list of them. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Wanted(NamedTuple):
    """What a list may hold; see ``Recommender.scores``."""

    exclude: Exclude = "seen"
    allowed: np.ndarray | None = None
    depth: int | None = None


def _keep_nothing(event: str, **facts: Any) -> None:
    del event, facts


@dataclass(frozen=True)
class RunContext:
    """How and where to run, apart from what is learnt: nothing here is a hyper-parameter.

    Attributes:
        seed: of every random choice.
        device: ``auto`` (``cuda`` if there is one, else ``cpu``), ``cpu``, ``cuda`` or ``mps``.
        devices: processes to train with, each on its own device (DDP); 1 means this one.
        nodes: machines to train with.
        precision: ``auto`` (bfloat16 where it is faster), ``fp32`` or ``bf16``.
        threads: of PyTorch, and of ALS, in one process; 0 leaves the library's own choice.
        compile: compile the network with ``torch.compile`` first; generators refuse it.
        folder: where checkpoints and the training log go; None keeps nothing.
        progress: who is told how far the work is.
        log: called with facts worth keeping, such as the figures of an epoch.
    """

    seed: int = 0
    device: Device = "auto"
    devices: int = 1
    nodes: int = 1
    precision: Precision = "auto"
    threads: int = 0
    compile: bool = False
    folder: Path | None = None
    progress: Progress = field(default_factory=Silent)
    log: Callable[..., None] = _keep_nothing

    def __post_init__(self) -> None:
        """Refuses an unknown device or precision, which would be taken for ``cpu`` and ``fp32``."""
        for name, known in (("device", get_args(Device)), ("precision", get_args(Precision))):
            if (given := getattr(self, name)) not in known:
                raise InputError(f'{name} = "{given}" is unknown. Choose {", ".join(known)}.')


class Recommender(ABC):
    """A model that orders the items of a catalog for a history.

    A subclass names itself (``name``), declares its ``Config`` and writes ``_fit``, ``_score``
    and its arrays; checks, cold start, masking, ranking, formatting and files are done here. The
    history travels with the query, so a user never seen in training is served by the same call.

    Attributes:
        version: raised when the same weights would answer otherwise; what another one wrote is
            refused.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    Config: ClassVar[type[ModelConfig]] = ModelConfig

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            register(cls.name, cls)

    def __init__(self, config: ModelConfig | None = None, **parameters: Any) -> None:
        """Parameters come as a ``Config`` or, by name, as keywords.

        Raises:
            InputError: for a parameter that does not exist, a value that is not allowed, or the
                ``Config`` of another recommender.
        """
        if config is not None and parameters:
            raise InputError(f"{self.name}: give a Config or keywords, not both.")
        if config is not None and not isinstance(config, self.Config):
            wrong, right = type(config).__name__, self.Config.__name__
            raise InputError(f"{self.name}: config is a {wrong}, must be a {right}.")
        self.config: Any = config or build_config(self.Config, parameters, place=self.name)
        self.catalog: Catalog | None = None
        self.popularity = np.zeros(0, np.int64)

    def fit(self, split: Split, run: RunContext | None = None) -> FitReport:
        """Learn from ``split.train``; tune, where the model does, on ``split.valid``."""
        self.catalog = split.catalog
        self.popularity = split.popularity
        try:
            return self._fit(split, run or RunContext())
        except BaseException:
            self.catalog = None  # half a model must not answer
            raise

    def recommend(
        self,
        histories: Sequences | Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude: Exclude = "seen",
        candidates: Sequence[str] | None = None,
    ) -> Recommendations:
        """The ``k`` best items for each history; of equal scores the lower item number comes first.

        Args:
            histories: one list of item ids per query, oldest first, or ``Sequences`` of item
                numbers of this model's catalog. Ids outside the catalog are ignored and counted
                in the result; an empty history gets popular items.
            k: items per list; fewer come back when the catalog (or ``candidates``) has fewer.
            exclude: ``seen`` leaves out the items of the history, ``none`` nothing.
            candidates: item ids that may be recommended; None means the whole catalog.

        Raises:
            InputError: when the model is not fitted, ``k`` is below 1, or no candidate is known.
            NotNumbersError: when a score is NaN.
        """
        from foretaste.nn.listing import best_scores

        catalog = self._fitted_catalog()
        if k < 1:
            raise InputError(f"k = {k} must be at least 1.")
        if exclude not in ("seen", "none"):
            raise InputError(f'exclude = "{exclude}" is unknown. Choose "seen" or "none".')
        known, unknown = self._number(histories)
        allowed = None if candidates is None else self._candidates(candidates)
        k = min(k, len(catalog))
        items = np.full((len(known), k), -1, np.int32)
        values = np.full((len(known), k), -np.inf, np.float32)
        for rows, scores in self.scores(known, exclude=exclude, allowed=allowed, depth=k):
            top = best_scores(scores, k)
            values[rows] = top.values.float().cpu().numpy()
            items[rows] = top.indices.cpu().numpy()
        if np.isnan(values).any():
            raise NotNumbersError(
                f"this {self.name} gave scores that are NaN: its training went to infinity. Train "
                "it again with a lower train.learning_rate."
            )
        items[np.isneginf(values)] = -1  # excluded items never fill a short list
        return Recommendations(items, values, unknown, catalog)

    def scores(
        self,
        histories: Sequences,
        *,
        exclude: Exclude = "seen",
        allowed: np.ndarray | None = None,
        depth: int | None = None,
        block: int | None = None,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Scores of the whole catalog, a block of queries at a time.

        Args:
            histories: item numbers of this model's catalog, one row per query.
            exclude: as for ``recommend``.
            allowed: bool ``[items]``, the items that may be recommended.
            depth: how many of the best must be in their right order; a model that searches for
                items looks for so many. None leaves it to the model.
            block: queries per block; by default as many as fit ``SCORES_AT_ONCE``.

        Yields:
            Row numbers ``[B]`` and float32 scores ``[B, items]``, -inf for what is left out.
            The scores may be overwritten by the next step.
        """
        import torch

        catalog = self._fitted_catalog()
        block = block or max(1, min(4096, SCORES_AT_ONCE // len(catalog)))
        order = np.argsort(histories.lengths, kind="stable")  # like lengths run together
        popular = torch.from_numpy(self._cold()).float()
        wanted = Wanted(exclude, allowed, depth)
        forbidden = None if allowed is None else torch.from_numpy(~allowed)
        for first in range(0, len(order), block):
            rows = order[first : first + block]
            part = histories.take(rows)
            cold = int((part.lengths == 0).sum())  # ordered by length: they come first
            if cold == len(rows):
                scores = popular.repeat(cold, 1)
            elif cold:
                warm = self._scored(part.take(np.arange(cold, len(rows))), wanted)
                scores = torch.cat([popular.to(warm.device).repeat(cold, 1), warm])
            else:
                scores = self._scored(part, wanted)
            if exclude == "seen":
                seen = torch.from_numpy(part.rows), torch.from_numpy(part.items.astype(np.int64))
                scores[seen] = -torch.inf
            if forbidden is not None:
                scores[:, forbidden] = -torch.inf
            yield rows, scores

    def save(self, folder: Path | str) -> None:
        """Write ``catalog.parquet``, ``weights.safetensors`` and, last, ``model.json``.

        Each file appears whole or not at all, and ``model.json`` holds the fingerprint of all, so
        that whoever reads while they are replaced can tell.
        """
        folder = Path(folder)
        catalog = self._fitted_catalog()
        arrays = {"popularity": self.popularity, **self._arrays()}
        description = {
            "name": self.name,
            "version": self.version,
            "config": self.config.model_dump(mode="json"),
            "fingerprint": self.fingerprint,
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "catalog.parquet", catalog.to_bytes())
        write_arrays(folder / "weights.safetensors", arrays)
        write_whole(folder / "model.json", (json.dumps(description, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what ``save`` wrote. ``Recommender.load`` finds the class by its name.

        Raises:
            InputError: when a file is missing, cut short, or belongs to another model or to another
                version of it.
        """
        folder = Path(folder)
        description = _read_description(folder)
        model_class = find(description["name"])
        if not issubclass(model_class, cls):
            raise InputError(f"{folder}: holds a {description['name']}, not a {cls.name}.")
        require_version(folder, description["version"], model_class.version)
        place = str(folder / "model.json")
        model = model_class(build_config(model_class.Config, description["config"], place=place))
        model.catalog = Catalog.load(folder / "catalog.parquet")
        arrays = read_arrays(folder / "weights.safetensors")
        popularity = arrays.pop("popularity", None)
        if popularity is None or len(popularity) != len(model.catalog):
            raise InputError(
                f"{folder / 'weights.safetensors'}: does not belong to the catalog beside it. "
                "Train again, or copy the whole run folder."
            )
        model.popularity = popularity
        try:
            model._set_arrays(arrays)
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{folder / 'weights.safetensors'}: not the weights of this {model.name} "
                f"({reason}). Train again, or copy the whole run folder."
            ) from error
        return model

    @property
    def fingerprint(self) -> str:
        """A hash of all that answers depend on, of the name and version to what was learnt.

        32 hexadecimal digits. Reading it costs a pass over the weights.
        """
        digest = hashlib.blake2b(digest_size=16)
        # Without a number the first version keeps the hashes it had before there were versions.
        version = f" {self.version}" if self.version > 1 else ""
        digest.update(f"{self.name}{version}".encode())
        digest.update(self.config.model_dump_json().encode())
        digest.update("\0".join(self._fitted_catalog().item_ids).encode())
        arrays = {"popularity": self.popularity, **self._arrays(), **self._read_off_catalog()}
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @abstractmethod
    def _fit(self, split: Split, run: RunContext) -> FitReport:
        """Learn. ``self.catalog`` and ``self.popularity`` are set."""

    @abstractmethod
    def _score(self, histories: Sequences) -> Tensor:
        """Scores float32 ``[B, items]`` of non-empty histories; the caller may write on it."""

    def _scored(self, histories: Sequences, wanted: Wanted) -> Tensor:
        """As ``_score``, for a model whose search depends on what is wanted."""
        del wanted
        return self._score(histories)

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """All that was learnt, by name."""

    def _read_off_catalog(self) -> dict[str, np.ndarray]:
        """What answers and states depend on besides: made of the catalog, not written."""
        return {}

    @abstractmethod
    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Take what ``_arrays`` gave. KeyError or ValueError when it does not fit."""

    def _cold(self) -> np.ndarray:
        """Scores ``[items]`` for an empty history."""
        return self.popularity

    def _fitted_catalog(self) -> Catalog:
        if self.catalog is None:
            raise InputError(f"this {self.name} has not learnt anything yet. Call fit or load.")
        return self.catalog

    def _number(
        self, histories: Sequences | Sequence[Sequence[str]]
    ) -> tuple[Sequences, np.ndarray]:
        """Histories in this catalog's numbers, and how many ids of each were not in it."""
        catalog = self._fitted_catalog()
        if isinstance(histories, Sequences):
            inside = (histories.items >= 0) & (histories.items < len(catalog))
            numbered = histories
        else:
            if isinstance(histories, str) or any(isinstance(one, str) for one in histories):
                raise InputError(
                    "histories must be a list of lists of item ids, one list for each query."
                )
            flat = [str(item) for one in histories for item in one]
            lengths = Sequences.from_lists([range(len(one)) for one in histories]).offsets
            numbered = Sequences(catalog.numbers(flat).astype(np.int32), lengths)
            inside = numbered.items >= 0
        known = numbered.where(inside)
        return known, numbered.lengths - known.lengths

    def _candidates(self, item_ids: Sequence[str]) -> np.ndarray:
        if isinstance(item_ids, str):
            raise InputError("candidates must be a list of item ids.")
        catalog = self._fitted_catalog()
        numbers = catalog.numbers([str(item) for item in item_ids])
        if not (numbers >= 0).any():
            raise InputError(f"candidates: none of the {len(numbers)} ids is in the catalog.")
        allowed = np.zeros(len(catalog), bool)
        allowed[numbers[numbers >= 0]] = True
        return allowed


def require_version(folder: Path, written: int, current: int) -> None:
    """Refuse what another version of a recommender left in a folder.

    Raises:
        InputError: when the versions differ.
    """
    if written != current:
        which = "an earlier" if written < current else "a later"
        raise InputError(
            f"{folder}: was written by {which} version, whose weights would answer differently "
            "here. It must be trained again, into another folder."
        )


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    try:
        description = {"version": 1} | json.loads(path.read_text())
        for key, kind in (("name", str), ("config", dict), ("version", int)):
            if not isinstance(description[key], kind):
                raise KeyError(key)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: no trained model here ({path.name} is missing). Give a run folder."
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a model description. Train again.") from error
    return description
