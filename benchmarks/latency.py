"""A returning user's next list: one step from the cached state against the whole history again.

    .venv/bin/python benchmarks/latency.py

SASRec with two layers and 12,000 items, its window as long as the history. All ways are timed in
turn, round after round, on one thread: the step from full keys and values, from CollectiveKV by
pool arithmetic, from CollectiveKV with its keys and values built again; and, for each, the encoding
of the whole history by the same model in PyTorch. CollectiveKV is there as in the paper (one pool,
in both layers) and with seven levels and a first layer that is looked up whole. Weights are random:
time does not depend on them. A step's ``products`` are its matrix products and nothing else, from
operands of the same shapes that lie ready, each in one piece: the share of the step that is
arithmetic.

The second table is the engine's, all that the service does but HTTP: the event is logged, log and
state are read from the store, the step is made, the best ten of the whole catalog are found and
the new record is kept. Its model is fitted for one epoch on a log made up for the purpose.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from peers.driving import write_table

from foretaste.data.dataset import Dataset
from foretaste.data.reading import read_interactions
from foretaste.data.split import split
from foretaste.nn.collective import CollectiveKeyValues
from foretaste.nn.stepping import BlockStep, CollectiveRead, CollectiveStep, FullStep
from foretaste.recommenders.core.sequence import Histories
from foretaste.recommenders.core.stepper import Stepper
from foretaste.recommenders.sasrec import SASRec, SASRecConfig, SASRecNetwork
from foretaste.serving.engine import Engine
from foretaste.serving.models import ServedRun
from foretaste.serving.questions import Question
from foretaste.serving.stores import Event, UserStore, open_store

ITEMS = 12_000
FORMS: dict[str, dict[str, Any]] = {
    "full": {"attention": "full"},
    "one pool": {
        "attention": "collective",
        "first_layer": "collective",
        "collective": {"user_dim": 4},
    },
    "seven levels": {
        "attention": "collective",
        "collective": {"user_dim": 0, "pool_levels": 7},
    },
}
ENGINE = FORMS | {"one pool": FORMS["one pool"] | {"first_layer": "full"}}
"""Caches of the engine; the first layer of collective ones is looked up whole."""
TOGETHER = 20
QUESTION = Question(run="run", user="ann", k=10)


class Rebuilding(CollectiveStep):
    """Keys and values built again from their parts, as a reader of the paper would write it."""

    def scores(self, query: np.ndarray, read: CollectiveRead) -> np.ndarray:
        """See ``KeyValuesStep``."""
        key, query = self._whole(read, 0), query.reshape(len(self.heads), -1)
        return np.stack([key[:, head].dot(query[head]) for head in self.heads])

    def mix(self, weights: np.ndarray, read: CollectiveRead) -> np.ndarray:
        """See ``KeyValuesStep``."""
        value = self._whole(read, 1)
        return np.concatenate([weights[head].dot(value[:, head]) for head in self.heads])

    def _whole(self, read: CollectiveRead, part: int) -> np.ndarray:
        """Keys (0) or values (1), ``[n + 1, H, K]``."""
        assert read.index is not None
        half = self.own // 2
        own = read.own[:, part * half : (part + 1) * half]
        own = own.reshape(len(own), *self.scale[part].shape)
        entries = (self.keys, self.values)[part][:, read.index[part]]  # [H, n + 1, L, K]
        pool = entries.sum(2).transpose(1, 0, 2)
        return np.concatenate([own * self.scale[part], pool], -1)


def network(dim: int, events: int, form: str) -> SASRecNetwork:
    """A network whose window holds the history."""
    torch.manual_seed(0)
    config = SASRecConfig.model_validate({"dim": dim, "window": events + 1, **FORMS[form]})
    return SASRecNetwork(ITEMS, config).eval()


def ways(dim: int, events: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    found: dict[str, Callable[[], object]] = {}
    items = torch.randint(0, ITEMS, (1, events), generator=torch.Generator().manual_seed(1))
    asked = Histories(items.int(), torch.tensor([events]), None)
    for form in FORMS:
        made = network(dim, events, form)
        with torch.no_grad():
            records = made.extend(made.start(), items[:, :-1]).records[0].numpy().copy()
        newest, step = int(items[0, -1]), made.stepper()
        found[f"step, {form}"] = partial(step.extend, records, newest, None)
        if form != "full":
            again = Stepper(made)
            for layer, block in zip(again.layers, made.layers, strict=True):
                assert isinstance(layer, BlockStep)
                if isinstance(block.key_values, CollectiveKeyValues):
                    layer.key_values = Rebuilding(block.key_values)
            a, b = step.extend(records, newest, None)[0], again.extend(records, newest, None)[0]
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
            found[f"step, {form}, keys rebuilt"] = partial(again.extend, records, newest, None)
        found[f"products, {form}"] = products(step, events)
        found[f"history again, {form}"] = partial(made.last, asked)
    return found


def products(step: Stepper, events: int) -> Callable[[], object]:
    """The matrix products of a step that makes a history ``events`` long, and nothing else."""
    rng = np.random.default_rng(0)
    calls: list[Callable[[], object]] = []

    def some(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    for layer in step.layers:
        assert isinstance(layer, BlockStep)
        for part in (layer.ask, layer.output, layer.widen, layer.narrow):
            calls.append(partial(part.weight.dot, some(part.weight.shape[1])))
        kept, heads = layer.key_values, len(layer.bias)
        if isinstance(kept, FullStep):
            known, new = (heads, events - 1, kept.head), (heads, 1, kept.head)
            pairs = [
                (some(*known), some(heads, kept.head, 1)),
                (some(*new), some(heads, kept.head, 1)),
                (some(heads, 1, events - 1), some(*known)),
            ]
        else:
            assert isinstance(kept, CollectiveStep)
            own, shared = kept.own // 2, kept.head - kept.per_head
            pairs = [
                (kept.keys, some(heads, shared, 1)),
                (some(heads, 1, kept.keys.shape[1]), kept.values),
            ]
            if own:
                pairs += [
                    (some(events, own), some(own, heads)),
                    (some(heads, events), some(events, own)),
                ]
            if kept.levels > 1:  # what the entries of further levels are chosen by
                pairs += [(pools, some(2, pools.shape[2], 1)) for pools in kept.entries[1:, ..., 0]]
        calls += [partial(np.matmul, *pair) for pair in pairs]
    return lambda: [call() for call in calls]


def engine_rows(stores: list[str], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of logging an event and of the list after it, for several stores and caches.

    All take turns, ``TOGETHER`` requests at a time: a noisy machine is slow for seconds on end.
    """
    dataset = Dataset.from_interactions(read_interactions(made_up_log()))
    prepared = split(dataset, "leave-last-out")
    served: dict[tuple[str, str], Served] = {}
    with ExitStack() as stack:
        for cache, form in ENGINE.items():
            model = SASRec(dim=64, window=200, train={"epochs": 1, "validate_queries": 1}, **form)
            model.fit(prepared)
            for url in stores:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                store = stack.enter_context(open_store(url.format(folder)))
                served[cache, url.split(":")[0]] = Served(model, store)
        for _ in range(-(-rounds // TOGETHER)):
            for one in served.values():
                one.ask(TOGETHER)
    return [
        {
            "cache": cache,
            "store": kind,
            "items": len(one.ids),
            "list p50 ms": f"{np.median(one.lists):.3f}",
            "list p99 ms": f"{np.quantile(one.lists, 0.99):.3f}",
            "event logged, p50 ms": f"{np.median(one.logged):.3f}",
        }
        for (cache, kind), one in served.items()
    ]


class Served:
    """An engine and its one user."""

    def __init__(self, model: SASRec, store: UserStore) -> None:
        """The user has 200 events, and has been answered once; others had every item before."""
        self.ids, self.store = model.catalog.item_ids, store
        self.engine = Engine([ServedRun("run", Path(), model, model.fingerprint, ())], store)
        self.rng = np.random.default_rng(0)
        self.logged: list[float] = []
        self.lists: list[float] = []
        store.append([Event("bob", item, 0) for item in self.ids])  # a store meets an item once
        store.append(self.events(200))
        self.engine.recommend(QUESTION)

    def events(self, count: int) -> list[Event]:
        """Random ones."""
        items = self.rng.integers(0, len(self.ids), count)
        return [Event("ann", self.ids[item], 0) for item in items]

    def ask(self, count: int) -> None:
        """Log an event and ask for a list, so many times."""
        for event in self.events(count):
            begin = time.perf_counter()
            self.store.append([event])
            logged = time.perf_counter()
            found = self.engine.recommend(QUESTION)
            self.lists.append(1000 * (time.perf_counter() - logged))
            self.logged.append(1000 * (logged - begin))
            assert found.source == "state" and len(found.items) == 10


def made_up_log() -> pl.DataFrame:
    """Every item twice, in users of 24 events."""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.permutation(ITEMS), rng.permutation(ITEMS)])
    users = np.arange(len(items)) // 24
    return pl.DataFrame({"user_id": users, "item_id": items, "timestamp": np.arange(len(items))})


def timed(found: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of every call, all ways in turn."""
    taken: dict[str, list[float]] = {name: [] for name in found}
    with torch.inference_mode():
        for round_ in range(rounds + 5):
            for name, call in found.items():
                if name.startswith("history") and round_ % 5:
                    continue  # long ones less often
                call()  # each is measured with its own operands in cache
                begin = time.perf_counter()
                call()
                if round_ >= 5:
                    taken[name].append(1000 * (time.perf_counter() - begin))
    return {name: np.array(values) for name, values in taken.items()}


def main() -> None:
    """Measure, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--stores", nargs="+", default=["memory", "lmdb:{}"])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = (
        f"The engine without HTTP: SASRec of width 64, window 200, {ITEMS:,} items, one user with "
        "a new event before every list, of an item that the store has met before; one thread. "
        "Written by `benchmarks/latency.py`."
    )
    engine = engine_rows(args.stores, args.rounds)
    write_table(args.out.with_name(f"{args.out.stem}_engine.md"), engine, about)
    rows = []
    for dim in args.dims:
        for events in args.events:
            taken = timed(ways(dim, events), args.rounds)
            middle = {name: float(np.median(values)) for name, values in taken.items()}
            for name in [key.removeprefix("step, ") for key in taken if key.startswith("step")]:
                step = taken[f"step, {name}"]
                again = middle["history again, " + name.removesuffix(", keys rebuilt")]
                p50, alone = middle[f"step, {name}"], middle.get(f"products, {name}")
                rows.append(
                    {
                        "dim": dim,
                        "events": events,
                        "step from": name,
                        "p50 ms": f"{p50:.3f}",
                        "p99 ms": f"{np.quantile(step, 0.99):.3f}",
                        "history again, p50 ms": f"{again:.3f}",
                        "times faster": f"{again / p50:.1f}",
                        "products alone": "" if alone is None else f"{alone / p50:.0%}",
                    }
                )
                print(rows[-1], flush=True)
    about = (
        f"SASRec, two layers, {ITEMS:,} items, one thread; the ways in turn in one run. "
        "``Products alone`` is the share of the step that its matrix products take by themselves, "
        "from operands that lie ready in one piece. "
        "Written by `benchmarks/latency.py`."
    )
    write_table(args.out, rows, about)


if __name__ == "__main__":
    main()
