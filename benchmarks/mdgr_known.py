"""Whether MDGR heeds the codes that it knows, and what that is worth to its lists.

    .venv/bin/python benchmarks/mdgr_known.py --amazon FOLDER

MDGR is taught in two ways: hidden slots together, as the item that they make up
(``normalise = "catalog"``), and each on its own, as in its siblings' papers (``"codes"``). In each
the vectors of known codes count once or eight times beside the history's state
(``known_weight``). For validation questions some slots are then told rightly, drawn at random, and
the mean cross-entropy of the others is held against what it is with all slots hidden: in
``"catalog"`` what all slots say together already holds what some say of the others, so that the
cross-entropy is over the items that agree. Last, every number of warm-up slots is asked for lists.
Codes, rate and batches are those of ``generative_quality.py``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amazon18 import published_split
from generative_arms import Arm
from generative_quality import Data, Settings, fit
from kept import Kept
from peers.driving import write_table

from foretaste.codes.parallel import FREE
from foretaste.data.split import Queries
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.mdgr import MDGR, Begun, MDGRNetwork

FORMS = [("catalog", 1.0, 0.1), ("catalog", 8.0, 0.1), ("codes", 1.0, 0.3), ("codes", 8.0, 0.3)]
"""What probabilities are over, the weight of known codes, and dropout: validation's choice for
``catalog``; what all begin with for ``codes``, for which no other was tried."""
TOLD = (0, 1, 2, 4)
"""Slots that are told."""
DIAL = (0, 1, 2, 8)
"""Slots of warm-up."""


@torch.no_grad()
def cross_entropies(
    model: MDGR, questions: Queries, told: int
) -> Iterator[tuple[float, float, float]]:
    """Of each question: knowing ``told`` slots, with all hidden, and how far logits move.

    Nats of what the hidden slots are; the last is a share of the logits' own spread.
    """
    network, rng = model.network, np.random.default_rng(0)
    assert isinstance(network, MDGRNetwork)
    for number, history in enumerate(questions.histories):
        goal = int(questions.targets[number][0])
        items = torch.from_numpy(history[-model.config.max_length :]).long()[None]
        lengths = torch.tensor([items.shape[1]])
        begun = Begun(*network.memory_of_last(network.read(items), lengths))
        right = network.codes.codes_of(torch.tensor([goal]))  # [1, L]
        hidden = torch.full_like(right, FREE)
        fixed, chosen = hidden.clone(), rng.permutation(right.shape[1])[:told]
        fixed[0, chosen] = right[0, chosen]
        free = (fixed == FREE)[0]
        of = torch.tensor([0])
        knowing, blind = (network.logits(codes, of, begun) for codes in (fixed, hidden))
        moved = (knowing - blind)[0, free].square().mean().sqrt() / blind[0, free].std()
        nats = []
        for logits in (knowing, blind):
            wanted = logits.gather(2, right[..., None])[0, free].sum()
            if network.catalog is None:
                total = logits.logsumexp(2)[0, free].sum()
            else:
                total = network.catalog.totals(fixed, logits)[0]
            nats.append(float(total - wanted))
        yield nats[0], nats[1], float(moved)


def measured(form: tuple[str, float, float], data: Data, seed: int, args: Any) -> None:
    """Fit one form, and keep its figures."""
    normalise, weight, dropout = form
    kept = Kept(args.runs / "known", f"{normalise} {weight:g}")
    if kept.path(seed).exists():
        return
    arm = Arm("MDGR", "mdgr", "opq", {"normalise": normalise, "known_weight": weight})
    model = fit(arm, data, seed, Settings(args.rate, dropout), args)
    assert isinstance(model, MDGR)
    valid, facts = data.split.valid, {}
    known = np.array([row[0] >= 0 for row in valid.targets]) & (valid.histories.lengths > 0)
    chosen = np.flatnonzero(known)[: args.questions]
    asked = Queries(valid.users[chosen], valid.histories.take(chosen), valid.targets.take(chosen))
    for told in TOLD:
        facts[f"told {told}"] = np.mean(list(cross_entropies(model, asked, told)), axis=0)
    every = np.arange(0, len(valid), args.every)
    some = Queries(valid.users[every], valid.histories.take(every), valid.targets.take(every))
    usual = model.config
    for slots in DIAL:
        model.config = usual.model_copy(update={"warm_up": slots})
        answers = rank_queries(model, some, ["ndcg@10"], exclude=data.exclude)
        facts[f"warm-up {slots}"] = answers.metrics["ndcg@10"].mean()
    kept.save(seed, facts)


def row_of(form: tuple[str, float, float], runs: Path) -> dict[str, Any]:
    """Means over the seeds of one form."""
    normalise, weight, _ = form
    kept = Kept(runs / "known", f"{normalise} {weight:g}")
    row: dict[str, Any] = {
        "probabilities over": normalise,
        "weight of known codes": f"{weight:g}",
        "seeds": len(kept.numbers),
    }
    for told in TOLD[1:]:
        knowing, blind, moved = kept.values(f"told {told}")
        row[f"nats knowing {told}, from all hidden"] = f"{knowing:.3f}, {blind:.3f}"
        row[f"logits move, knowing {told}"] = f"{moved:.1%}"
    for slots in DIAL:
        row[f"NDCG@10, {slots} warm-up"] = f"{float(kept.values(f'warm-up {slots}')):.4f}"
    return row


def main() -> None:
    """Measure what is missing, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amazon", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--forms", type=int, nargs="+", default=list(range(len(FORMS))))
    parser.add_argument("--questions", type=int, default=400, help="of which slots are told")
    parser.add_argument("--every", type=int, default=3, help="validation question is asked")
    parser.add_argument("--sources", nargs="+", default=["text"])
    parser.add_argument("--rate", type=float, default=0.001)
    parser.add_argument("--validate-every", type=int, default=3, help="epochs")
    parser.add_argument("--runs", type=Path, default=Path("runs/generative"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = Data(args.amazon.name, published_split(args.amazon), "none")
    for seed in args.seeds:
        for form in args.forms:
            measured(FORMS[form], data, seed, args)
    rows = [
        row_of(form, args.runs)
        for form in FORMS
        if Kept(args.runs / "known", f"{form[0]} {form[1]:g}").numbers
    ]
    about = (
        f"{data.name}, validation, {data.split.items:,} items, eight slots; lists "
        f"are of one question in {args.every}, cross-entropies of {args.questions} questions and "
        "of the slots that are not told. 32 beams. Written by `benchmarks/mdgr_known.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
