"""A run folder: the product of an experiment, and where everything later starts from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.data.sources import require_utf8
from foretaste.errors import InputError, WriteError
from foretaste.experiments.machine import main_process
from foretaste.experiments.recipe import Recipe, read_toml
from foretaste.recommenders.core.base import Recommender
from foretaste.storage import write_whole

FORMAT = 1
LEARNT = ("checkpoint.safetensors", "weights.safetensors")
WRITTEN = (
    *LEARNT,
    "run.json",
    "log.jsonl",
    "model.json",
    "catalog.parquet",
    "metrics.json",
    "metrics.parquet",
    "samples.json",
    "federation.toml",
    "federation.safetensors",
)
"""What a run writes beside its recipe, and what nobody else may have put there."""


class RunFolder:
    """A folder with what one run was asked and what it gave.

    ``recipe.toml`` the whole recipe; ``run.json`` versions, seed, data, split, leakage, learning
    curve, time and memory; ``model.json``, ``catalog.parquet`` and ``weights.safetensors`` the
    model; ``metrics.json`` and ``metrics.parquet`` the figures, in all and per query;
    ``samples.json`` lists to read; ``log.jsonl`` what happened when; ``checkpoint.safetensors``
    while training. Every file appears whole or not at all, and none is ever unpickled.
    """

    def __init__(self, path: Path | str) -> None:
        """Nothing is read yet."""
        self.path = Path(path)

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> Self:
        """A new run folder that holds the recipe.

        Raises:
            InputError: when there is a run already, or a file that a run would write over, or the
                folder cannot be written or has a name that is not UTF-8.
        """
        require_utf8(path.absolute())
        if (path / "recipe.toml").exists():
            raise InputError(
                f"{path}: holds a run already. Choose another --run folder, or go on with it: "
                f"foretaste resume {path}"
            )
        if taken := [name for name in WRITTEN if (path / name).exists()]:
            raise InputError(
                f"{path}: holds a {taken[0]} that is of no run, and a run would write over it. "
                "Choose another --run folder."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot make the folder ({error.strerror}).") from error
        folder = cls(path)
        folder.write("recipe.toml", recipe.to_toml())
        return folder

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """An existing run folder.

        Raises:
            InputError: when there is none.
        """
        folder = cls(path)
        if not (folder.path / "recipe.toml").is_file():
            raise InputError(
                f"{folder.path}: not a run folder (recipe.toml is missing). "
                "Make one with: foretaste train --data my.csv --model sasrec"
            )
        return folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While this process works in the folder, no other may; what a killed one left goes.

        Raises:
            InputError: when another process is at work in it.
        """
        if not main_process():  # of several that train together, the first holds the folder
            yield
            return
        place = os.open(self.path, os.O_RDONLY)
        try:
            if not _locked(place):
                raise InputError(
                    f"{self.path}: another process is at work in this run. Wait until it is "
                    "done, or stop it first."
                )
            for left in self.path.glob("*.partial"):
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(place)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "run.json").exists() and self.record.get("status") == "done"

    @property
    def measured(self) -> bool:
        """Whether all figures can be read."""
        try:
            self.per_query("test")
            _ = self.metrics, self.samples
        except InputError:
            return False
        return True

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The recipe as nested tables."""
        return read_toml(self.path / "recipe.toml")

    @cached_property
    def record(self) -> dict[str, Any]:
        """``run.json``: what was run on what, and what it cost."""
        return self._read_json("run.json", dict)

    @property
    def fingerprint(self) -> str:
        """Of the data that the run is of.

        Raises:
            InputError: when ``run.json`` does not say.
        """
        data = self.record.get("data")
        if not isinstance(data, dict) or not data.get("fingerprint"):
            raise InputError(f"{self.path / 'run.json'}: names no data. Train again.")
        return data["fingerprint"]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json``: figures by part (``valid``, ``test``)."""
        return self._read_json("metrics.json", dict)

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """``samples.json``: a few lists in titles."""
        return self._read_json("samples.json", list)

    def per_query(self, part: str) -> pl.DataFrame:
        """Metrics of every query of ``valid`` or ``test``: ``user_id``, ``history_length``, ...

        Raises:
            InputError: when the file is missing or damaged.
        """
        path = self.path / "metrics.parquet"
        try:
            frame = pl.read_parquet(path)
            return frame.filter(pl.col("part") == part).drop("part")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"{path}: cannot read the metrics ({type(error).__name__}). "
                f"Make them again: foretaste resume {self.path}"
            ) from error

    def catalog(self) -> Catalog:
        """The items that the model can recommend."""
        return Catalog.load(self.path / "catalog.parquet")

    def recommender(self) -> Recommender:
        """The trained model.

        Raises:
            InputError: when the run was cut off, or a file is missing or damaged.
        """
        if not (self.path / "model.json").exists():
            raise InputError(
                f"{self.path}: training has not come to its end. "
                f"Go on with it: foretaste resume {self.path}"
            )
        return Recommender.load(self.path)

    def write(self, name: str, content: str | dict[str, Any] | list[Any]) -> None:
        """Write a text or JSON file in one step."""
        if not isinstance(content, str):
            content = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(self.path / name, content.encode())
        self.__dict__.pop(name.split(".")[0], None)  # what was read before is no longer true
        self.__dict__.pop("record", None)

    def discard(self) -> None:
        """Take away a run that has learnt nothing, so that its name is free again.

        A run with a checkpoint or a model stays as it is.
        """
        if any((self.path / name).exists() for name in LEARNT):
            return
        for name in ("recipe.toml", "run.json", "log.jsonl"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # the user's own files may be in it
            self.path.rmdir()

    def log(self, event: str, **facts: Any) -> None:
        """Add a line to ``log.jsonl``.

        Raises:
            WriteError: when the disk is full or the folder cannot be written.
        """
        line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **facts}
        try:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise WriteError(
                f"{self.path / 'log.jsonl'}: cannot write the log ({error.strerror}). Free some "
                f"space, then go on with: foretaste resume {self.path}"
            ) from error

    def _read_json(self, name: str, kind: type) -> Any:
        path = self.path / name
        way = (
            "Train again." if name == "run.json" else f"Make it again: foretaste resume {self.path}"
        )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"{path}: missing; the run has not come to its end. "
                f"Go on with it: foretaste resume {self.path}"
            ) from error
        except ValueError as error:
            raise InputError(f"{path}: damaged ({error}). {way}") from error
        if not isinstance(content, kind):
            raise InputError(f"{path}: not what a run writes. {way}")
        return content


def _locked(place: int) -> bool:
    """Whether an open folder is now this process's own, until it is closed."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return True
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
