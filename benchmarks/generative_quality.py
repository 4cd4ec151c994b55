"""Quality of recommenders that write semantic IDs, beside their controls and what scores items.

    .venv/bin/python benchmarks/generative_quality.py --amazon FOLDER FOLDER --data movietweetings

``--amazon`` takes folders of Amazon 2018 as published (see ``amazon18.py``), whose questions are
asked as they are, items of the history allowed. ``--data`` takes a log; it is cut by leave-last-out
after a 5-core, and items of the history are left out. Ranking is over the full catalog.

All networks have the same width, blocks, batches and early stopping on validation; each tries the
same learning rates with the first seed, keeps the one that validation likes best, and then tries
the same dropouts. An ablation takes both from the arm that it is one of. What codes are made of,
text alone or collaborative vectors too, is what validation likes better of TIGER. Codes are made
once for each set, tokenizer and seed, and shared by all arms that use them. MDGR is asked with
several numbers of warm-up slots. Figures of every question are kept in ``--runs``, one file for
each arm and seed, and packed beside the table, so that the script goes on where it was stopped;
differences are paired by question, each question's mean over the seeds. Intervals are over users,
some of whom ask several questions.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from amazon18 import published_split
from generative_arms import ARMS, FIXED, NAMED, REVERSED, TOKENIZERS, Arm, turned
from kept import Kept, difference_of_users, mean_of_users, pack, unpack, with_interval
from peers.driving import write_table

from foretaste.codes.tokenizer import FitContext
from foretaste.data.learnt_from import LearntFrom
from foretaste.data.split import Split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection, SplitSection
from foretaste.experiments.running import split_dataset
from foretaste.metrics import holm
from foretaste.recommenders.core.base import Exclude, Recommender, RunContext
from foretaste.recommenders.core.coding import CodedCatalog, CodingConfig, code_catalog
from foretaste.recommenders.core.collaborative import collaborative_vectors
from foretaste.recommenders.core.generator import Generator
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.registry import find

METRICS = ("ndcg@10", "hr@10")
TRAIN = {
    "epochs": 100,
    "patience": 10,
    "min_epochs": 25,
    "batch_tokens": 512,
    "validate_queries": 1_500,
}
NETWORK: dict[str, Any] = {"dim": 64, "layers": 2, "heads": 2, "max_length": 50}
WRITING: dict[str, Any] = NETWORK | {"decoder_layers": 2, "reads": "items", "beams": 30}
DIAL = (0, 1, 2)
"""Warm-up slots of MDGR; as many as there are, serial decoding, is added."""
SOURCES = ("text", "collaborative", "both")
L2 = (10.0, 100.0, 1_000.0)
QUESTIONS = "questions.npz"
"""Who asks each test question, and how many events come before it."""
LONG = 9
"""Events of a long history: ten with the answer, as S2GR's paper keeps in its test."""


DROPOUT = 0.3
"""With which learning rates are tried."""


class Settings(NamedTuple):
    """What validation chooses for an arm."""

    rate: float
    dropout: float = DROPOUT


class Made(NamedTuple):
    """What figures were made with: settings, and what codes are made of."""

    rate: float
    dropout: float
    source: str

    @classmethod
    def of(cls, kept: Kept, seed: int) -> "Made":
        """The figures of one seed."""
        one = kept.one(seed)
        return cls(float(one["rate"]), float(one["dropout"]), str(one["source"]))


class Data(NamedTuple):
    """A set, and how it is asked."""

    name: str
    split: Split
    exclude: Exclude


def codes_of(data: Data, tokenizer: str, source: str, seed: int, runs: Path) -> Path:
    """A folder with codes of the set's items, made when it is not there."""
    folder = runs / data.name / f"codes-{tokenizer}-{source}-{seed}".replace(" ", "_")
    if not (folder / "coding.json").exists() and tokenizer.endswith(REVERSED):
        coded = CodedCatalog.load(
            codes_of(data, tokenizer.removesuffix(REVERSED), source, seed, runs)
        )
        coded.tokenizer.codes = turned(coded.codes)
        coded.save(folder)
    elif not (folder / "coding.json").exists():
        train, vectors = data.split.train, None
        if source != "text":
            vectors = collaborative_vectors(train, data.split.items, 64, seed)
        coding = CodingConfig(tokenizer=TOKENIZERS[tokenizer])  # type: ignore[arg-type]
        if source == "collaborative":
            coding = coding.model_copy(update={"text": None})
        coded = code_catalog(
            data.split.catalog,
            coding,
            item_vectors=vectors,
            vectors_from=LearntFrom.of("collaborative vectors", data.split.catalog, train),
            sequences=train,
            context=FitContext(seed, "cpu"),
        )
        coded.save(folder)
    return folder


def made(
    arm: Arm, data: Data, seed: int, settings: Settings, args: argparse.Namespace
) -> Recommender:
    """An unfitted model."""
    kind = find(arm.model)
    if arm.model in FIXED:
        return kind()
    train = TRAIN | {"learning_rate": settings.rate, "validate_every": args.validate_every}
    train["patience"] = TRAIN["patience"] // args.validate_every  # so many epochs
    parameters: dict[str, Any] = {"train": train, "dropout": settings.dropout}
    if not arm.codes:
        return kind(**NETWORK, **parameters)
    parameters["codes_from"] = codes_of(data, arm.codes, source_of(data, args), seed, args.runs)
    return kind(**(WRITING | parameters | arm.parameters))


def fit(
    arm: Arm, data: Data, seed: int, settings: Settings, args: argparse.Namespace
) -> Recommender:
    """A fitted model; EASE with the penalty that is best on validation."""
    run = RunContext(seed=seed, threads=1)
    if arm.model != "ease":
        model = made(arm, data, seed, settings, args)
        model.fit(data.split, run)
        return model
    models = [find("ease")(l2=l2) for l2 in L2]
    values = []
    for model in models:
        model.fit(data.split, run)
        answers = rank_queries(model, data.split.valid, ["ndcg@10"], exclude=data.exclude)
        values.append(answers.metrics["ndcg@10"].mean())
    return models[int(np.argmax(values))]


def source_of(data: Data, args: argparse.Namespace) -> str:
    """What codes are made of: what validation likes best of TIGER, with the first rate and seed."""
    if len(args.sources) == 1:
        return args.sources[0]
    tiger, first, found = NAMED["TIGER"], Settings(args.rates[0]), {}
    for source in args.sources:
        kept = Kept(args.runs / "sources" / f"{data.name}-{source}", tiger.name)
        if not kept.path(0).exists():
            only = argparse.Namespace(**vars(args) | {"sources": [source]})
            measure(tiger, data, 0, first, only, kept.folder)
        found[source] = float(kept.one(0)["valid"])
    chosen = max(found, key=lambda source: found[source])
    same = tried(tiger, data, first, args)  # TIGER tries it, too
    if not same.path(0).exists():
        same.save(0, Kept(args.runs / "sources" / f"{data.name}-{chosen}", tiger.name).one(0))
    return chosen


def tried(arm: Arm, data: Data, settings: Settings, args: argparse.Namespace) -> Kept:
    """Figures of one arm with these settings, the first seed's."""
    place = f"{data.name}-{settings.rate}"
    if settings.dropout != DROPOUT:
        place += f"-dropout-{settings.dropout}"
    return Kept(args.runs / "rates" / place, arm.name)


def best_of(among: list[Settings], arm: Arm, data: Data, args: argparse.Namespace) -> Settings:
    """Those that are best on validation, with the first seed."""
    found = {}
    for settings in among:
        kept = tried(arm, data, settings, args)
        if not kept.path(0).exists() or Made.of(kept, 0) != made_with(arm, data, settings, args):
            measure(arm, data, 0, settings, args, kept.folder)
        found[settings] = float(kept.one(0)["valid"])
    return max(found, key=lambda settings: found[settings])


def made_with(arm: Arm, data: Data, settings: Settings, args: argparse.Namespace) -> Made:
    """What figures of an arm are made with."""
    return Made(*settings, source_of(data, args) if arm.codes else "")


def settings_of(arm: Arm, data: Data, args: argparse.Namespace) -> Settings:
    """The learning rate, then the dropout, that validation likes best."""
    if arm.model in FIXED:
        return Settings(0.0, 0.0)
    if arm.like:
        return settings_of(NAMED[arm.like], data, args)
    if arm.name == "TIGER":
        source_of(data, args)  # may have tried one already
    rate = best_of([Settings(rate) for rate in args.rates], arm, data, args).rate
    return best_of([Settings(rate, dropout) for dropout in args.dropouts], arm, data, args)


def measure(
    arm: Arm, data: Data, seed: int, settings: Settings, args: argparse.Namespace, folder: Path
) -> None:
    """Fit, ask, and keep in ``folder``; later seeds of MDGR with other warm-ups too."""
    if arm.codes:  # made before the clock runs, as the next arm finds them made
        codes_of(data, arm.codes, source_of(data, args), seed, args.runs)
    begin = time.process_time()
    model = fit(arm, data, seed, settings, args)
    facts: dict[str, Any] = {"fit_seconds": time.process_time() - begin}
    facts |= made_with(arm, data, settings, args)._asdict()
    asked: list[tuple[str, int | None]] = []
    if arm.name == "MDGR" and seed:  # that of the first seed may be a trial that is left
        assert isinstance(model, Generator)
        slots = len(model.codes.sizes)
        dial = [warm_up for warm_up in DIAL if warm_up < slots] + [slots]
        asked = [(f", {warm_up} warm-up", warm_up) for warm_up in dial]
    valid = rank_queries(model, data.split.valid, ["ndcg@10"], exclude=data.exclude)
    facts["valid"] = valid.metrics["ndcg@10"].mean()
    usual = model.config
    for suffix, warm_up in [*asked, ("", None)]:  # last what says that all are there
        model.config = usual
        if warm_up is not None:
            model.config = usual.model_copy(update={"warm_up": warm_up})
        found = dict(facts)
        begin = time.process_time()
        answers = rank_queries(model, data.split.test, METRICS, exclude=data.exclude)
        found["ask_seconds"] = time.process_time() - begin
        found |= {metric: answers.metrics[metric] for metric in METRICS}
        Kept(folder, arm.name + suffix).save(seed, found)
        print(
            f"{folder.name} {arm.name}{suffix} {seed} {settings} valid {found['valid']:.4f}",
            f"fit {found['fit_seconds']:.0f} s, ask {found['ask_seconds']:.1f} s",
            flush=True,
        )


def measured(arm: Arm, data: Data, seed: int, args: argparse.Namespace) -> None:
    """See that the figures of an arm and a seed are there; those of the first were made to tune."""
    if arm.model in FIXED and seed:
        return
    folder, settings = args.runs / data.name, settings_of(arm, data, args)
    wanted = made_with(arm, data, settings, args)
    for name in [arm.name, *warm_ups(arm.name)]:
        kept = Kept(folder, name)
        for one in kept.numbers:
            if Made.of(kept, one) != wanted:
                kept.path(one).unlink()
    if Kept(folder, arm.name).path(seed).exists():
        return
    if seed or arm.model in FIXED or arm.like:
        measure(arm, data, seed, settings, args, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(tried(arm, data, settings, args).path(0), folder)


def warm_ups(name: str) -> list[str]:
    """Rows of MDGR with other numbers of slots."""
    return [f"{name}, {warm_up} warm-up" for warm_up in range(9)] if name == "MDGR" else []


def consistent(kept: Kept) -> Kept:
    """Without the seeds that were made with other settings than the first."""
    made = {seed: Made.of(kept, seed) for seed in kept.numbers}
    first = next(iter(made.values()), None)
    wrong = [seed for seed, one in made.items() if one != first]
    return Kept(kept.folder, kept.stem, wrong)


def rows_of(data: str, runs: Path) -> list[dict[str, Any]]:
    """The table of one set; each arm against its control and against SASRec."""
    names = [arm.name for arm in ARMS]
    place = names.index("MDGR") + 1
    names[place:place] = warm_ups("MDGR")
    known = {name: consistent(Kept(runs / data, name)) for name in names}
    known = {name: kept for name, kept in known.items() if kept.seeds}
    made = {name: Made.of(kept, kept.numbers[0]) for name, kept in known.items()}
    parents = {arm.name: arm.like for arm in ARMS} | dict.fromkeys(warm_ups("MDGR"), "MDGR")
    for name in list(known):  # an ablation of other settings than what it is one of says nothing
        if made[name] != made.get(parents[name], made[name]):
            del known[name]
    controls = {arm.name: arm.against for arm in ARMS if arm.against in known}
    controls |= {name: "MDGR" for name in known if name.startswith("MDGR, ") and "warm" in name}
    pairs = [(name, control) for name, control in controls.items() if name in known]
    pairs += [(name, "SASRec") for name in known if name != "SASRec" and "SASRec" in known]
    questions = np.load(runs / data / QUESTIONS)
    users, long = questions["users"], questions["lengths"] >= LONG
    tests = {}
    for name, control in pairs:
        common = {*known[name].numbers} & {*known[control].numbers}  # of the seeds that both have
        if common:
            mine, theirs = (one.values("ndcg@10", common) for one in (known[name], known[control]))
            tests[name, control] = difference_of_users(mine, theirs, users)
    corrected = dict(zip(tests, holm([one.p_value for one in tests.values()]), strict=True))

    def told(name: str, control: str) -> str:
        if (name, control) not in tests:
            return ""
        return with_interval(tests[name, control], corrected[name, control])

    rows = []
    for name, kept in known.items():
        ndcg = mean_of_users(kept.values("ndcg@10"), users)
        control = controls.get(name, "")
        rows.append(
            {
                "data": data,
                "model": name,
                "seeds": len(kept.seeds),
                "NDCG@10": f"{ndcg.value:.4f} ({ndcg.low:.4f}-{ndcg.high:.4f})",
                "HR@10": f"{kept.values('hr@10').mean():.4f}",
                f"NDCG@10 after {LONG}+ events": f"{kept.values('ndcg@10')[long].mean():.4f}",
                "control": control,
                "minus control": told(name, control) if control else "",
                "minus SASRec": told(name, "SASRec"),
                "rate": f"{made[name].rate:g}",
                "dropout": f"{made[name].dropout:g}",
                "CPU s to fit": f"{np.mean([one['fit_seconds'] for one in kept.seeds]):.0f}",
                "ms/question": "{:.2f}".format(
                    1000
                    * np.mean([one["ask_seconds"] for one in kept.seeds])
                    / len(kept.seeds[0]["ndcg@10"])
                ),
            }
        )
    return rows


def read_data(args: argparse.Namespace) -> list[Data]:
    """The sets that were asked for."""
    sets = []
    for folder in args.amazon:
        sets.append(Data(folder.name, published_split(folder), "none"))
    for name in args.data:
        log = load_dataset(DataSection(source=name, k_core=5))
        split = split_dataset(log, SplitSection(kind="leave-last-out"))
        sets.append(Data(Path(name).stem, split, "seen"))
    return sets


def main() -> None:
    """Measure what is missing, and write the table of all that is there beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amazon", type=Path, nargs="*", default=[])
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--arms", type=int, nargs="+", default=list(range(len(ARMS))))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=["text", "both"])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.002])
    parser.add_argument("--dropouts", type=float, nargs="+", default=[DROPOUT, 0.1])
    parser.add_argument("--validate-every", type=int, default=3, help="epochs")
    parser.add_argument("--runs", type=Path, default=Path("runs/generative"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    archive = args.out.with_suffix(".zip")
    unpack(archive, args.runs)
    for data in read_data(args):
        (args.runs / data.name).mkdir(parents=True, exist_ok=True)
        test = data.split.test
        place = args.runs / data.name / QUESTIONS
        np.savez(place, users=test.users, lengths=test.histories.lengths)
        for seed in args.seeds:
            for arm in [ARMS[number] for number in args.arms]:
                measured(arm, data, seed, args)
    folders = sorted(path.parent.name for path in args.runs.glob(f"*/{QUESTIONS}"))
    pack(args.runs, archive)
    rows = [row for data in folders for row in rows_of(data, args.runs)]
    about = (
        "Width 64, 2 blocks that read and 2 that write; means over seeds with 95 % intervals over "
        "users, who may ask several questions, differences paired, p Holm-corrected. MDGR fills "
        "one slot before the rest unless another warm-up is named. CPU seconds of one thread. "
        "Written by `benchmarks/generative_quality.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
