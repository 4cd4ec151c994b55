"""What a beam misses: its lists beside the exact ranking of the whole catalog.

    .venv/bin/python benchmarks/beam_share.py --amazon FOLDER

TIGER, S2GR and MDGR are fitted over the codes of ``generative_quality.py``, all with one rate and
one dropout (``--learning-rate``, ``--dropout``). For some test questions every
path of the catalog is scored on its own, which is exact and slow; then beams of several widths
answer the same questions. Also told: how much of the probability lies on paths that are items,
which is what a search without the trie would have to find by luck. Of MDGR, whose last stage is
exact, the beams are those of its warm-up slot (``warm_beams``), and all codes of that slot are the
exact ranking.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amazon18 import published_split
from generative_arms import NAMED
from generative_quality import Data, Settings, fit
from peers.driving import write_table

from foretaste.codes.beam import FoundItems, score_catalog, share_found
from foretaste.codes.trie import Trie
from foretaste.data.sequences import Sequences
from foretaste.recommenders.core.generator import Generator
from foretaste.recommenders.core.search_check import illegal
from foretaste.recommenders.mdgr import MDGR
from foretaste.recommenders.tiger import TIGER

MODELS = ["TIGER", "TIGER, of all codes", "S2GR", "MDGR"]
WIDTHS = (10, 20, 30, 50, 100)
WARM_WIDTHS = (2, 4, 8, 16, 32)
"""Of MDGR; fewer than two would not lead to ten items."""
K = 10


def asked_for(model: Generator, histories: Sequences, width: int, k: int = K) -> FoundItems:
    """The best ``k`` that beams of a width find."""
    wide = {"warm_beams": width, "beams": K} if isinstance(model, MDGR) else {"beams": width}
    model.config = model.config.model_copy(update=wide)
    lists = model.recommend(histories, k, exclude="none")
    return FoundItems(torch.from_numpy(lists.items).long(), torch.from_numpy(lists.scores))


@torch.no_grad()
def exact(model: Generator, histories: Sequences) -> torch.Tensor:
    """Log-probabilities ``[B, items]`` of every item, each path on its own."""
    model.network.eval()
    if isinstance(model, MDGR):
        found = asked_for(model, histories, max(model.codes.sizes), len(model.codes))
        rows = torch.arange(len(found.items))[:, None]
        return torch.full_like(found.log_probs, -torch.inf).index_put_(
            (rows, found.items), found.log_probs
        )
    assert isinstance(model, TIGER)
    trie, rows = Trie.from_table(model.codes.table), []
    for history in histories:
        items = torch.from_numpy(history[-model.config.max_length :]).long()[None]
        lengths = torch.tensor([items.shape[1]])
        asking = model.writer.ask(items, lengths)
        rows.append(score_catalog(lambda step, a=asking: model.writer.write(step, a), trie, 1)[0])
    return torch.stack(rows)


@torch.no_grad()
def illegal_results(model: Generator, histories: Sequences) -> tuple[int, int]:
    """Of the first ``K`` that a search writes: those whose codes are not the item's, and all."""
    table, (index, _) = torch.from_numpy(model.codes.table).long(), model._searched(None)
    wrong, written = 0, 0
    for _, asked in model._asking(histories, max(model.config.beams, K)):
        found = model._search(asked, index)
        told = illegal(found, table)
        assert told is not None
        wrong += int(told[:, :K].sum())
        written += int(found.log_probs[:, :K].isfinite().sum())
    return wrong, written


def measure(name: str, data: Data, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one model."""
    model = fit(NAMED[name], data, 0, Settings(args.learning_rate, args.dropout), args)
    assert isinstance(model, Generator)
    warm = np.flatnonzero(data.split.test.histories.lengths > 0)[: args.questions]
    histories = data.split.test.histories.take(warm)
    truth = exact(model, histories)
    rows = []
    for width in WARM_WIDTHS if isinstance(model, MDGR) else WIDTHS:
        begin = time.process_time()
        found = asked_for(model, histories, width)
        seconds = time.process_time() - begin
        share = share_found(found, truth, K)
        wrong, written = illegal_results(model, histories)
        rows.append(
            {
                "data": data.name,
                "model": name,
                "beams": width,
                f"of the exact {K} best": f"{float(share.mean()):.1%}",
                "worst question": f"{float(share.min()):.0%}",
                "probability on items": f"{float(truth.exp().sum(1).mean()):.1%}",
                "illegal results": f"{wrong} of {written:,}",
                "ms/question": f"{1000 * seconds / len(histories):.1f}",
            }
        )
    return rows


def main() -> None:
    """Measure, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amazon", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--sources", nargs="+", default=["text"])
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--validate-every", type=int, default=3, help="epochs")
    parser.add_argument("--runs", type=Path, default=Path("runs/generative"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = Data(args.amazon.name, published_split(args.amazon), "none")
    rows = [row for name in args.models for row in measure(name, data, args)]
    about = (
        f"{args.questions} test questions, seed 0; the exact ranking scores every path of the "
        "catalog on its own. Written by `benchmarks/beam_share.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
