"""What a curious server reads off one update of one user: was this item in the history?

    .venv/bin/python benchmarks/federated_curiosity.py

MovieTweetings, k-core 5, leave-last-out; users of nodes of their own, trained from the first state,
which every server knows. A server has for each item the evidence of the method
(``FederatedMethod.item_evidence``); the figure is the area under the curve of telling a user's
items from all others by it: 0.5 is a guess, 1 is certainty.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peers.driving import write_table
from rqfedrec import DIM, INT8, SENT

from foretaste.data.split import Split, split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection
from foretaste.federated.core.base import World
from foretaste.federated.core.curiosity import infer_histories
from foretaste.federated.core.randomness import user_keys
from foretaste.federated.core.registry import find_method
from foretaste.federated.core.travelling import going_up
from foretaste.recommenders.core.configuring import build_config
from foretaste.recommenders.core.registry import find

RESULTS = Path(__file__).with_suffix(".md")
NOISE = {"clip": 0.1, "noise": 1.0, "where": "client"}


class Case(NamedTuple):
    """A method with settings of its own."""

    method: str
    settings: dict[str, Any]
    model: str = "als"


CASES = {
    "FedAvg": Case("fedavg", {}, "sasrec"),
    "FedAvg, clipped": Case("fedavg", {"privacy": {"clip": 0.1}}, "sasrec"),
    "FedAvg, clipped, noise": Case("fedavg", {"privacy": NOISE}, "sasrec"),
    "LUMOS, random views": Case("lumos", {"views": {"kind": "random"}}, "sasrec"),
    "FedMF": Case("fedmf", {}),
    "PFedRec": Case("pfedrec", {}),
    "PFedRec, hashed, as many bytes": Case("pfedrec", {"rows": -(-SENT // (DIM + 4)), **INT8}),
    "RQFedRec": Case("rqfedrec", {}),
    "RQFedRec, no sketch": Case("rqfedrec", {"sketch": 0}),
    "RQFedRec, semantic codes alone": Case("rqfedrec", {"collaborative_levels": 0}),
    "RQFedRec, clipped, noise": Case("rqfedrec", {"privacy": NOISE, "average": "all"}),
}
MODELS: dict[str, dict[str, Any]] = {"als": {"factors": DIM}, "sasrec": {"dim": DIM, "layers": 2}}


def measure(data: Split, name: str, users: int) -> dict[str, Any]:
    """A row of the table."""
    case = CASES[name]
    found = find_method(case.method)
    model = find(case.model)(**MODELS[case.model])
    method = found(
        build_config(found.Config, case.settings, place=name), World(data.catalog, model)
    )
    able = np.flatnonzero(data.train.lengths > 1)
    rows = np.random.default_rng(0).choice(able, users, replace=False)
    sent = method.to_send(method.start(), 1)
    seen = infer_histories(method, sent, user_keys(data.users[rows]), data.train.take(rows))
    return {
        "method": name,
        "bytes up": f"{sum(one.bytes for one in going_up(method, 'train')):,}",
        "users": users,
        "area under the curve": f"{seen.mean:.3f}",
        "of a tenth of users below": f"{np.nanquantile(seen.auc, 0.1):.3f}",
    }


def main() -> None:
    """Measure all methods and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--methods", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = split(load_dataset(DataSection(source="movietweetings", k_core=5)))
    rows = [measure(data, name, args.users) for name in args.methods]
    about = (
        f"MovieTweetings, {data.items:,} items: how well the items of a history are told from all "
        "others by one update of its user alone, in the first round; noise is of each user, 1.0 "
        "times the clipping norm of 0.1. Written by `benchmarks/federated_curiosity.py`."
    )
    write_table(args.out, rows, about)


if __name__ == "__main__":
    main()
