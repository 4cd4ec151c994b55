"""Make the views of a data set once, so that runs can be repeated without a language model.

    .venv/bin/python benchmarks/lumos_views.py --data movietweetings --maker judged

writes ``benchmarks/lumos_views.parquet`` (of Office ``lumos_views_office.parquet``): future,
rephrasing and counterfactual of every training history (leave-last-out, k-core 5) as item numbers,
under a hash of the history. Makers: ``judged`` (SmolLM2-135M-Instruct keeps or rejects neighbours
of titles), ``chat`` (it writes titles itself),
``titles`` (TF-IDF), ``random``, and ``oracle`` (co-occurrence in all users' logs, which no device
has: how much views could help if a maker knew what only the whole log tells). What was made is in
``--store`` after every batch: stop it and start it again at will. ``--users N`` makes the views of
the first N users in a fixed random order, and a table of what is there is written at the end.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection, SplitSection
from foretaste.experiments.running import split_dataset
from foretaste.language.views.chat import ChatConfig
from foretaste.language.views.drawn import RandomConfig, RandomViews
from foretaste.language.views.judged import JudgedConfig
from foretaste.language.views.local_model import LocalModelConfig
from foretaste.language.views.making import ViewBook, maker_for
from foretaste.language.views.neighbours import NeighbourConfig, TitlesConfig, VectorViews, unit
from foretaste.language.views.store import ViewStore, key_of, print_of, write_table
from foretaste.language.views.views import Request, View, ViewMaker
from foretaste.progress import Progress, Silent

THINGS = {"movietweetings": "films", "office": "office products"}
MAKERS = ("judged", "chat", "titles", "oracle", "random")
TABLE = Path(__file__).with_suffix(".parquet")
TABLES = {"movietweetings": TABLE, "office": TABLE.with_stem(f"{TABLE.stem}_office")}
"""The committed ones: views by ``judged``."""


class Source(NamedTuple):
    """A data set as this benchmark reads it."""

    name: str
    split: Split


def read(name: str, office: Path | None) -> Source:
    """MovieTweetings (embedded), or amazon18-office as ``benchmarks/amazon18.py`` wrote it."""
    if name == "movietweetings":
        section = DataSection(source="movietweetings", k_core=5)
    else:
        assert office is not None, "--office FOLDER, which benchmarks/amazon18.py wrote"
        section = DataSection(
            source=str(office / "interactions.parquet"),
            items=str(office / "items.parquet"),
            k_core=5,
        )
    return Source(name, split_dataset(load_dataset(section), SplitSection(kind="leave-last-out")))


class OracleViews(VectorViews):
    """Nearest items by co-occurrence in everybody's training log: what no device could know."""

    lasting = True

    def __init__(self, train: Sequences, items: int) -> None:
        """Vectors of 64 numbers: the strongest directions of the users-by-items matrix."""
        super().__init__(NeighbourConfig())
        ones = np.ones(train.events, np.float32)
        matrix = csr_array((ones, (train.rows, train.items)), shape=(len(train), items))
        matrix.sum_duplicates()
        popularity = np.asarray(matrix.sum(0)).ravel()
        matrix.data /= np.sqrt(popularity[matrix.indices])
        start = np.random.default_rng(0).standard_normal(min(matrix.shape))
        _, strength, right = svds(matrix, k=64, v0=start)
        self._vectors = unit((right * strength[:, None]).T)
        self.identity = "oracle"

    def vectors(self, request: Request) -> np.ndarray:
        """Of all users' logs."""
        del request
        return self._vectors


class KeptRandomViews(RandomViews):
    """Random views that are made once, as those that mean something are."""

    lasting, identity = True, "random"


def maker_of(name: str, source: Source, model: LocalModelConfig) -> ViewMaker:
    """A maker by its name here."""
    things, catalog = THINGS[source.name], source.split.catalog
    if name == "oracle":
        return OracleViews(source.split.train, len(catalog))
    if name == "random":
        return KeptRandomViews(RandomConfig(), len(catalog))
    if name == "titles":
        return maker_for(TitlesConfig(), catalog)
    if name == "judged":
        return maker_for(JudgedConfig(model=model, things=things), catalog)
    # A model of this size continues one title; of ten it repeats the ten.
    return maker_for(ChatConfig(model=model, things=things, newest=1, exchanges=1), catalog)


def trained(split: Split) -> Sequences:
    """The histories that train: two events or more."""
    return split.train.take(np.flatnonzero(split.train.lengths > 1))


def noisy(histories: Sequences, share: float, items: int, seed: int) -> Sequences:
    """Histories with random items at random places, ``share`` of their length."""
    rng = np.random.default_rng([seed, 1_000])
    rows = []
    for history in histories:
        count = int(share * len(history) + rng.random())
        places = rng.integers(len(history) + 1, size=count)
        rows.append(np.insert(history, places, rng.integers(items, size=count)))
    return Sequences.from_lists(rows)


def make(
    name: str, source: Source, store: Path, model: LocalModelConfig, users: int, progress: Progress
) -> tuple[dict[bytes, View], int, int]:
    """Views by hash of the history, titles that were written, and those that matched nothing."""
    histories = trained(source.split)
    order = np.random.default_rng(0).permutation(len(histories))[: users or None]
    some = histories.take(order)
    book = ViewBook(maker_of(name, source, model), source.split.catalog, ViewStore(store))
    found = book.views(Request(some, np.zeros(len(some), np.uint64)), progress)
    printed = print_of(source.split.catalog)
    keys = [key_of(history, printed) for history in some]
    return dict(zip(keys, found.rows, strict=True)), found.asked, found.unmatched


def table_for(name: str, source: Source, folder: Path) -> Path:
    """The table of a maker's views; made now where that needs no language model."""
    if name == "judged" and (made := TABLES[source.name]).exists():
        return made
    path = folder / f"views-{name}.parquet"
    if not path.exists() and name in ("titles", "oracle", "random"):
        folder.mkdir(parents=True, exist_ok=True)
        store = folder / f"views-{name}.sqlite"
        views, _, _ = make(name, source, store, LocalModelConfig(), 0, Silent())
        write_table(path, source.split.catalog, views)
    return path


def describe(catalog: Catalog, views: dict[bytes, View]) -> str:
    """How many of each kind there are, and how long."""
    rows = list(views.values())
    shares = [f"{np.mean([len(row[kind]) > 0 for row in rows]):.1%}" for kind in range(3)]
    return (
        f"{len(rows):,} histories; future {shares[0]}, rephrasing {shares[1]}, "
        f"counterfactual {shares[2]}; {len(catalog):,} items"
    )


def main() -> None:
    """Make views and write their table."""
    from foretaste.cli.display import progress as bars

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(THINGS), default="movietweetings")
    parser.add_argument("--office", type=Path, help="folder that benchmarks/amazon18.py wrote")
    parser.add_argument("--maker", choices=MAKERS, default="judged")
    parser.add_argument("--users", type=int, default=0, help="0: all")
    parser.add_argument("--store", type=Path, default=Path("runs/lumos/views.sqlite"))
    parser.add_argument("--model", default=LocalModelConfig().model)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, help="by default the committed table of judged views")
    args = parser.parse_args()
    source = read(args.data, args.office)
    model = LocalModelConfig(
        model=args.model, dtype=args.dtype, tokens=args.tokens, batch=args.batch
    )
    views, asked, unmatched = make(
        args.maker, source, args.store, model, args.users, bars(False, False)
    )
    write_table(args.out or TABLES[args.data], source.split.catalog, views)
    print(describe(source.split.catalog, views))
    if asked:
        print(f"{asked:,} titles written, {unmatched / asked:.1%} match nothing")


if __name__ == "__main__":
    main()
