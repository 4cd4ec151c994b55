"""Data that comes with the package, and well-known sets that must be fetched from their homes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources

from foretaste.data.interactions import Interactions
from foretaste.data.reading import read_interactions
from foretaste.data.sources import listed, nearest
from foretaste.errors import InputError


@dataclass(frozen=True)
class EmbeddedSet:
    """A data set inside the package.

    Attributes:
        name: what ``--data`` takes.
        description: one line.
        licence: its terms; the text lies beside the files.
        users: how many users it has; likewise ``items``, ``interactions``.
        log: its file of interactions in the package.
        item_file: its file of titles and categories.
    """

    name: str
    description: str
    licence: str
    users: int
    items: int
    interactions: int
    log: str
    item_file: str


@dataclass(frozen=True)
class KnownSet:
    """A data set that is read as it comes, once the user has fetched it.

    Attributes:
        name: the field's name for it.
        description: one line.
        licence: its terms in short; the publisher's page decides.
        home: who publishes it, and where.
        give: what ``--data`` takes once it is unpacked.
    """

    name: str
    description: str
    licence: str
    home: str
    give: str


EMBEDDED_SETS = (
    EmbeddedSet(
        name="movietweetings",
        description="film ratings from tweets, February to September 2013, with titles and genres",
        licence="MIT, (c) 2013 Simon Dooms",
        users=16_554,
        items=10_506,
        interactions=100_000,
        log="movietweetings.parquet",
        item_file="movietweetings_items.parquet",
    ),
)

_RESEARCH = "research only, no redistribution"
_AMAZON = "Julian McAuley's page at UC San Diego (Amazon review data)"

KNOWN_SETS = (
    KnownSet(
        "movielens-100k",
        "film ratings of 943 users, 1997-98, with age, gender and occupation",
        _RESEARCH,
        "GroupLens (grouplens.org, MovieLens 100K)",
        "the folder, or u.data",
    ),
    KnownSet(
        "movielens-1m",
        "a million film ratings of 6,040 users, 2000-03",
        _RESEARCH,
        "GroupLens (grouplens.org, MovieLens 1M)",
        "the folder, or ratings.dat",
    ),
    KnownSet(
        "movielens-20m",
        "20 million film ratings of 138,493 users, 1995-2015",
        _RESEARCH,
        "GroupLens (grouplens.org, MovieLens 20M)",
        "the folder, or ratings.csv",
    ),
    KnownSet(
        "movielens-32m",
        "32 million film ratings of 200,948 users, 1995-2023",
        _RESEARCH,
        "GroupLens (grouplens.org, MovieLens 32M)",
        "the folder, or ratings.csv",
    ),
    KnownSet(
        "amazon-beauty",
        "Amazon 2014 Beauty, 5-core: 22,363 users, 12,101 items, 198,502 reviews",
        "research only",
        _AMAZON,
        "the reviews as JSON lines, or Beauty.txt of S3-Rec",
    ),
    KnownSet(
        "amazon-2018",
        "Amazon reviews to 2018, by category",
        "research only",
        _AMAZON,
        "the 5-core reviews as JSON lines",
    ),
    KnownSet(
        "amazon-2023",
        "Amazon reviews to 2023, by category",
        "research only",
        _AMAZON,
        "the 5-core CSV of a category",
    ),
    KnownSet(
        "steam",
        "game reviews from Steam",
        "research only",
        "Julian McAuley's page at UC San Diego (Steam video game data)",
        "the reviews as JSON lines, or a RecBole .inter file",
    ),
    KnownSet(
        "yelp",
        "reviews of local businesses",
        "Yelp data set agreement, academic use",
        "Yelp Open Dataset (business.yelp.com, Open Dataset)",
        "yelp_academic_dataset_review.json",
    ),
)


def read_embedded(name: str) -> Interactions:
    """Read a data set of the package.

    Raises:
        InputError: no such set is embedded; a known one is told where to get.
    """
    known = {embedded.name: embedded for embedded in EMBEDDED_SETS}
    if name not in known:
        raise InputError(_not_embedded(name, list(known)))
    chosen = known[name]
    folder = resources.files("foretaste.data").joinpath("embedded")
    # as_file gives real paths even when the package is imported from a zip.
    with (
        resources.as_file(folder.joinpath(chosen.log)) as log,
        resources.as_file(folder.joinpath(chosen.item_file)) as items,
    ):
        read = read_interactions(log, items=items)
    return replace(read, source=chosen.name)


def _not_embedded(name: str, embedded: list[str]) -> str:
    for known in KNOWN_SETS:
        if known.name == name.lower():
            return (
                f'"{name}" is not part of the package ({known.licence}). Get it from '
                f"{known.home} and give its path: {known.give}."
            )
    names = [*embedded, *(known.name for known in KNOWN_SETS)]
    return f'no data set "{name}" (embedded: {listed(embedded)}).{nearest(name, names)}'
