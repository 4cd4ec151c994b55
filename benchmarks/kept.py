"""Figures of every user or question, which benchmarks keep so that they go on where they stopped.

Each arm and seed is one file in a folder of runs, which git does not hold. ``pack`` puts all these
files into one archive beside the table, which it does hold, and ``unpack`` gets them back: a table
is extended by new arms and seeds on any machine, and its intervals can be computed again.
"""

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from foretaste.metrics import Interval, PairedDifference, bootstrap_mean, paired_difference

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of all members, so that the same figures give the same archive."""


class Kept:
    """Figures of one arm on one set, a file for each seed."""

    def __init__(self, folder: Path, name: str, without: Collection[int] = ()) -> None:
        """Those that are there, but for some seeds."""
        self.folder, self.stem = folder, name.replace(" ", "_").replace(",", "")
        self.without = frozenset(without)

    def path(self, seed: int) -> Path:
        """Of one seed."""
        return self.folder / f"{self.stem}-{seed}.npz"

    def save(self, seed: int, figures: Mapping[str, object]) -> None:
        """Keep what was measured with one seed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.asarray(figure) for name, figure in figures.items()}
        partial = self.path(seed).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(self.path(seed))

    @property
    def numbers(self) -> list[int]:
        """The seeds of which there is something."""
        ends = [path.stem.removeprefix(f"{self.stem}-") for path in self.folder.glob("*.npz")]
        return sorted({int(end) for end in ends if end.isdigit()} - self.without)

    def one(self, seed: int) -> dict[str, np.ndarray]:
        """What was kept of one seed."""
        with np.load(self.path(seed)) as kept:
            return dict(kept)

    @property
    def seeds(self) -> list[dict[str, np.ndarray]]:
        """All that was kept."""
        return [self.one(seed) for seed in self.numbers]

    def values(self, metric: str, seeds: set[int] | None = None) -> np.ndarray:
        """Each user's mean over the seeds, or over some of them."""
        chosen = self.numbers if seeds is None else sorted(seeds)
        return np.mean([self.one(seed)[metric] for seed in chosen], axis=0)

    def fact(self, name: str) -> float | None:
        """The mean of a number over the seeds that have it."""
        known = [float(one[name]) for one in self.seeds if name in one]
        return float(np.mean(known)) if known else None


def with_interval(one: PairedDifference, p: float | None = None, digits: int = 3) -> str:
    """A difference as tables tell it, with its interval, and ``p`` where it is corrected."""
    more = "" if p is None else f"; p {p:.{digits}f}"
    return f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f}{more})"


def of_users(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    """What each user adds to the mean of the questions ``[N]`` that users int ``[N]`` asked.

    Several questions of one user are not independent: the user is the unit of an interval. The mean
    of what comes back, ``[U]``, is the mean of ``values``.
    """
    sums = np.bincount(np.unique(users, return_inverse=True)[1], values)
    return sums * (len(sums) / len(values))


def mean_of_users(values: np.ndarray, users: np.ndarray) -> Interval:
    """The mean of the questions with its interval; who asks more weighs more."""
    mean = values.mean()
    return bootstrap_mean(mean + of_users(values - mean, users))


def difference_of_users(one: np.ndarray, other: np.ndarray, users: np.ndarray) -> PairedDifference:
    """The mean difference of the same questions, its interval and p over users."""
    return paired_difference(of_users(one, users), of_users(other, users))


def unpack(archive: Path, runs: Path) -> None:
    """Write the files of an archive that a folder of runs does not have yet."""
    if not archive.exists():
        return
    with zipfile.ZipFile(archive) as packed:
        for member in packed.namelist():
            if not (runs / member).exists():
                packed.extract(member, runs)


def pack(runs: Path, archive: Path, files: str = "*.npz") -> None:
    """Put all figures of a folder of runs into the archive, in the order of their names."""
    partial = archive.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w") as packed:
        for path in sorted(runs.rglob(files)):
            member = zipfile.ZipInfo(str(path.relative_to(runs)), LONG_AGO)
            member.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(member, path.read_bytes(), compresslevel=9)
    partial.replace(archive)
