"""From a log, or a file of items alone, to a folder with codes and figures about them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from foretaste.codes.tokenizer import FitContext, find
from foretaste.data.catalog import Catalog
from foretaste.data.item_files import read_items
from foretaste.data.leakage import check_codes
from foretaste.data.learnt_from import LearntFrom
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.machine import machine, versions
from foretaste.experiments.recipe import DataSection, SplitSection
from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import reopen, split_dataset
from foretaste.language.endpoint import EndpointConfig
from foretaste.language.sentence_model import SentenceConfig
from foretaste.language.tfidf import TfidfConfig
from foretaste.recommenders.core.coding import (
    VECTORS,
    CodedCatalog,
    CodingConfig,
    code_catalog,
    vectors_of,
)
from foretaste.recommenders.core.configuring import build_config
from foretaste.storage import write_whole
from foretaste.suggesting import nearest

TEXT_CONFIGS = (TfidfConfig, SentenceConfig, EndpointConfig)
FIGURES = "report.json"


@dataclass(frozen=True)
class ItemsToCode:
    """The items that get codes.

    Attributes:
        name: of the data, for people.
        catalog: the items: those of the training part, where there is a log.
        train: training histories over the catalog's numbers; None without a log.
        notes: what a reader should know, one line each.
        split: how the log was cut; None without a log.
    """

    name: str
    catalog: Catalog
    train: Sequences | None
    notes: tuple[str, ...] = ()
    split: Split | None = None


def items_of_log(data: DataSection, split: SplitSection) -> ItemsToCode:
    """The items of the training part of a log, with its histories.

    Nothing from after the cut is learnt from, neither items nor who chose what.

    Raises:
        InputError: when the log cannot be read or cut.
    """
    dataset = load_dataset(data)
    cut = split_dataset(dataset, split)
    later = len(dataset.catalog) - cut.items
    notes = (f"{later:,} items that came later get no codes here.",) if later else ()
    return ItemsToCode(data.source, cut.catalog, cut.train, notes, cut)


def items_of_file(path: Path) -> ItemsToCode:
    """The items of a file of titles, categories and texts.

    Raises:
        InputError: when it cannot be read.
    """
    frame, notes = read_items(path)
    return ItemsToCode(path.name, Catalog.from_items(frame["item_id"], frame), None, notes)


def coding_config(settings: Mapping[str, Any]) -> CodingConfig:
    """A configuration from dotted fields such as ``codes.tokenizer.levels``.

    ``codes.text.kind = "none"`` leaves texts out.

    Raises:
        InputError: for an unknown field or a value that is not allowed.
    """
    values: dict[str, Any] = {"tokenizer": {"kind": "rqkmeans"}, "text": {"kind": "tfidf"}}
    for field, value in settings.items():
        section, *path, last = field.split(".")
        if section != "codes":
            raise InputError(f"--set {field}: only data.*, split.* and codes.* can be set here.")
        place: Any = values
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(f'--set {field}: "{part}" is a value, not a section.')
        place[last] = value
    # Each by its own class: an error inside a choice of classes would not name the field.
    tokenizer, text = values["tokenizer"], values["text"]
    for name, value in (("tokenizer", tokenizer), ("text", text)):
        if not isinstance(value, Mapping):
            raise InputError(f"codes.{name} = {value!r}: write codes.{name}.kind={value}.")
    kind = find(str(tokenizer["kind"])).Config
    values["tokenizer"] = build_config(kind, tokenizer, place="codes.tokenizer")
    values["text"] = None if text["kind"] == "none" else _text_config(text)
    return build_config(CodingConfig, values, place="codes")


def _text_config(values: dict[str, Any]) -> BaseModel:
    known = {kind.model_fields["kind"].default: kind for kind in TEXT_CONFIGS}
    if values["kind"] not in known:
        near = nearest(str(values["kind"]), [*known, "none"])
        raise InputError(f'codes.text.kind = "{values["kind"]}" is unknown{near}')
    return build_config(known[values["kind"]], values, place="codes.text")


def fit_codes(
    items: ItemsToCode,
    config: CodingConfig,
    folder: Path | None = None,
    *,
    run: Path | None = None,
    context: FitContext | None = None,
    seeds: int = 1,
    cache: Path | None = None,
) -> tuple[Path, CodedCatalog, dict[str, Any]]:
    """Give items codes, measure them, and write all of it to a folder.

    Args:
        items: what gets codes.
        config: how.
        folder: where to; by default the first free ``runs/codes-DATA-TOKENIZER``.
        run: a trained run whose item vectors are coded too.
        context: seed, device, progress.
        seeds: how many other seeds the codes are compared with.
        cache: a file that keeps the vectors of text models, ``off`` for none; None for the usual.

    Returns:
        The folder, the codes, and the figures that ``report.json`` holds.

    Raises:
        InputError: when the folder holds codes already, or something given is wrong.
    """
    context = context or FitContext()
    folder = folder or _free_folder(items.name, config.tokenizer.kind)
    if (folder / "coding.json").exists():
        raise InputError(f"{folder}: holds codes already. Choose another --output.")
    vectors, source, notes = None, None, [*items.notes]
    if run is not None:
        vectors = vectors_of(RunFolder.open(run).recommender(), items.catalog)
        source = run_learnt_from(run)
        if items.split is not None:
            found = check_codes(items.split, [source])
            notes += [f"For experiments on this split: {finding.message}." for finding in found]
    coded = code_catalog(
        items.catalog,
        config,
        item_vectors=vectors,
        vectors_from=source,
        sequences=items.train,
        context=context,
        cache=cache,
    )
    assert coded.tokenizer.seconds is not None
    others = []
    for number in range(1, seeds + 1):
        again = coded.tokenizer.again()
        other = replace(context, seed=context.seed + number)
        others.append(again.fit(coded.vectors, sequences=items.train, context=other).nearest)
    report = coded.tokenizer.report(coded.vectors, others=others, seed=context.seed)
    figures = {
        "name": folder.name,
        "data": items.name,
        "notes": notes,
        "seed": context.seed,
        "seconds": coded.seconds,
        "learning_seconds": coded.tokenizer.seconds.learning,
        "sources": _sources(config, run),
        "learnt_from": [one.to_json() for one in coded.learnt_from],
        "report": report.to_json(),
        "fingerprint": coded.codes.fingerprint,
        "versions": versions(),
        "machine": machine(),
    }
    text = json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(folder / FIGURES, text.encode())
    coded.save(folder)  # what says that the folder holds codes comes last
    return folder, coded, figures


def run_learnt_from(run: Path) -> LearntFrom:
    """What a run was trained on, as it says; a run of an earlier version says it by its data.

    Raises:
        InputError: when it is no run.
    """
    folder, what = RunFolder.open(run), f"{VECTORS} of {run}"
    found = LearntFrom.from_json((folder.record.get("split") or {}).get("train"))
    if found.fingerprint is None:
        if "clicks" in folder.recipe:  # it was trained on no split
            return LearntFrom(what)
        try:
            split = reopen(folder)[2]
        except InputError:  # the data is gone or has changed
            return LearntFrom(what)
        found = LearntFrom.of(what, split.catalog, split.train)
    return replace(found, what=what)


def read_figures(folder: Path) -> dict[str, Any]:
    """What ``fit_codes`` measured.

    Raises:
        InputError: when there is no such folder, it is half written, or the file is damaged.
    """
    path = folder / FIGURES
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        report = figures["report"]
        numbers = (
            *(figures["seconds"], figures["learning_seconds"]),
            report["collisions"]["same_vector"],
        )
        if not isinstance(report["levels"], list) or None in numbers:
            raise ValueError("not what codes fit writes")
    except OSError as error:
        raise InputError(
            f"{folder}: not a folder of codes ({FIGURES} is missing). Make one with: "
            "foretaste codes fit"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged. Fit the codes again.") from error
    if not (folder / "coding.json").exists():
        raise InputError(
            f"{folder}: holds no codes, only what was measured of them: it was cut off while it "
            "was written. Fit the codes again."
        )
    return figures


def _sources(config: CodingConfig, run: Path | None) -> str:
    """What was coded, in words."""
    parts = [f"text by {config.text.kind}"] if config.text else []
    parts += [f"item vectors of {run.name}"] if run else []
    return " and ".join(parts)


def _free_folder(data: str, tokenizer: str, root: Path = Path("runs")) -> Path:
    name = re.sub(r"[^\w-]+", "-", Path(data).stem).strip("-") or "items"
    base = root / f"codes-{name}-{tokenizer}"
    if not base.exists():
        return base
    numbered = (base.with_name(f"{base.name}-{number}") for number in count(2))
    return next(folder for folder in numbered if not folder.exists())
