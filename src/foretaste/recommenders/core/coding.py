"""Codes for a catalog: item text and item vectors to a tokenizer, in one call, and to a folder."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from foretaste.codes.coba import CoBaConfig
from foretaste.codes.opq import OPQConfig
from foretaste.codes.report import findings_on
from foretaste.codes.rqkmeans import RQKMeansConfig
from foretaste.codes.rqvae import RQVAEConfig
from foretaste.codes.table import FIT_AGAIN, Codes
from foretaste.codes.tokenizer import FitContext, Tokenizer, find
from foretaste.data.catalog import Catalog
from foretaste.data.leakage import check_codes
from foretaste.data.learnt_from import LearntFrom
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.language.embed import TextConfig, TextEncoder, encoder_for
from foretaste.language.endpoint import EndpointConfig
from foretaste.language.sentence_model import SentenceConfig
from foretaste.language.sources import Scaling, Source
from foretaste.language.texts import FIELDS, item_texts
from foretaste.language.texts import Field as TextField
from foretaste.language.tfidf import WORD, Tfidf, TfidfConfig
from foretaste.recommenders.core.base import ModelConfig, Recommender
from foretaste.recommenders.core.configuring import build_config
from foretaste.recommenders.core.sequence import SequenceRecommender
from foretaste.storage import read_arrays, write_arrays, write_whole

TokenizerConfig = Annotated[
    RQKMeansConfig | RQVAEConfig | CoBaConfig | OPQConfig, Field(discriminator="kind")
]
"""How vectors become codes; ``kind`` is the tokenizer's name."""

VECTORS, TOGETHER = "item vectors", "co-occurrence"
"""What codes can be learnt from besides texts, as records and errors call it."""


class CodingConfig(ModelConfig):
    """How items get codes.

    Attributes:
        tokenizer: how vectors become codes.
        text: how texts become vectors; None leaves texts out.
        fields: what of an item's text is read.
        text_weight: how much text counts beside other vectors.
        vectors_weight: how much other vectors count beside text.
    """

    tokenizer: TokenizerConfig = RQKMeansConfig()
    text: TextConfig | None = TfidfConfig()
    fields: tuple[TextField, ...] = FIELDS
    text_weight: float = Field(default=1.0, gt=0)
    vectors_weight: float = Field(default=1.0, gt=0)


@dataclass(frozen=True)
class CodedCatalog:
    """A catalog with its codes and all that gives codes to new items.

    Attributes:
        config: how it was made.
        catalog: the items, row by row those of ``codes``.
        tokenizer: fitted; ``codes`` are its.
        vectors: float32 ``[items, D]``, what was coded.
        encoder: of texts; None when texts were left out.
        scaling: what made several sources comparable; None for one source.
        seconds: what the tokenizer took.
        learnt_from: the interactions that went into the codes, one entry for vectors that were
            given and one for what is chosen together; none for codes of texts alone.
        warnings: what a reader of figures should know of these codes.
    """

    config: CodingConfig
    catalog: Catalog
    tokenizer: Tokenizer
    vectors: np.ndarray
    encoder: TextEncoder | None
    scaling: Scaling | None
    seconds: float
    learnt_from: tuple[LearntFrom, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def codes(self) -> Codes:
        """The codes of the catalog."""
        assert self.tokenizer.codes is not None
        return self.tokenizer.codes

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong with the codes, such as levels that have collapsed; a sentence each."""
        return (*self.warnings, *findings_on(self.codes, self.vectors))

    def codes_for(self, catalog: Catalog, place: str) -> Codes:
        """The codes of a catalog's items, in its order; ``place`` is what errors call this one.

        Raises:
            InputError: when an item has no codes, or another title here than there: ids that are
                mere numbers are those of other items in another catalog.
        """
        own = self.catalog.frame.select("item_id", own="title")
        both = catalog.frame.select("item_id", "title").join(
            own, on="item_id", maintain_order="left"
        )
        others = both.filter(pl.col("title") != pl.col("own"))
        if len(others):
            item, title, told = others.row(0)
            raise InputError(
                f'{place}: codes of another catalog: item "{item}" is "{told}" there and "{title}" '
                f"here, and {len(others) - 1:,} more differ. Fit codes on this catalog: foretaste "
                "codes fit"
            )
        return self.codes.for_items(catalog.frame["item_id"], place)

    def embed(self, catalog: Catalog, item_vectors: np.ndarray | None = None) -> np.ndarray:
        """Vectors of other items, as those of the fit were made.

        Raises:
            InputError: when vectors were used for the fit and none are given, or the reverse.
        """
        sources = _sources(self.config, catalog, self.encoder, item_vectors)
        used = 1 if self.scaling is None else len(self.scaling.means)
        if len(sources) != used:
            verb = "were" if used > len(sources) else "were not"
            raise InputError(f"item vectors {verb} used to fit these codes. Give the same sources.")
        return sources[0].vectors if self.scaling is None else self.scaling.combine(sources)

    def assign(
        self,
        catalog: Catalog,
        item_vectors: np.ndarray | None = None,
        codes: Codes | None = None,
    ) -> Codes:
        """The codes with those of new items after them; nothing is learnt and no old item moves.

        Args:
            catalog: of the new items.
            item_vectors: float ``[new items, D]``, where vectors were used for the fit.
            codes: what to add to; by default the codes of the fit.
        """
        known = self.codes if codes is None else codes
        table = self.tokenizer.assign(self.embed(catalog, item_vectors), known)
        return known.with_items(catalog.item_ids, table)

    def save(self, folder: Path) -> None:
        """Write four files: codes, vectors, ``catalog.parquet`` and, last, ``coding.json``.

        Raises:
            WriteError: when the disk is full or the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder / "codes.safetensors")
        arrays = {"vectors": self.vectors}
        if isinstance(self.encoder, Tfidf):
            arrays |= {f"text.{name}": value for name, value in self.encoder.to_arrays().items()}
        if self.scaling is not None:
            arrays |= {f"mean.{n}": mean for n, mean in enumerate(self.scaling.means)}
            arrays["scales"] = np.array(self.scaling.scales)
        write_arrays(folder / "vectors.safetensors", arrays)
        write_whole(folder / "catalog.parquet", self.catalog.to_bytes())
        about = {
            "config": self.config.model_dump(mode="json"),
            "texts": self.encoder is not None,
            "seconds": self.seconds,
            "learnt_from": [source.to_json() for source in self.learnt_from],
        }
        write_whole(folder / "coding.json", (json.dumps(about, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", cache: Path | None = None) -> CodedCatalog:
        """Read what ``save`` wrote. A model of texts is opened when a new item's text is read.

        Raises:
            InputError: when a file is missing, damaged, or of another catalog than the rest.
        """
        about, config = _read_about(folder)
        tokenizer = Tokenizer.load(folder / "codes.safetensors", device)
        arrays = read_arrays(folder / "vectors.safetensors", again=FIT_AGAIN)
        catalog = Catalog.load(folder / "catalog.parquet", again=FIT_AGAIN)
        assert tokenizer.codes is not None
        tokenizer.codes.require(catalog.frame["item_id"], str(folder))
        vectors = arrays.get("vectors", np.zeros((0, 0)))
        if len(vectors) != len(catalog):
            raise InputError(
                f"{folder}: vectors of {len(vectors):,} items for {len(catalog):,} codes. Fit the "
                "codes again."
            )
        texts, encoder = "text.terms" in arrays, None
        try:
            means = [arrays[f"mean.{n}"] for n in range(len(arrays.get("scales", ())))]
            scaling = Scaling(tuple(means), tuple(arrays["scales"].tolist())) if means else None
            if texts or (about.get("texts") and isinstance(config.text, TfidfConfig)):
                own = {name.removeprefix("text."): value for name, value in arrays.items()}
                encoder = Tfidf.from_arrays(own)
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(
                f"{folder / 'vectors.safetensors'}: not whole ({error}). {FIT_AGAIN}"
            ) from error
        if about.get("texts", True) and isinstance(config.text, SentenceConfig | EndpointConfig):
            width = len(means[0]) if means else vectors.shape[1]
            encoder = encoder_for(config.text, (), cache=cache, width=width)
        sources = _recorded(about, config, several=bool(means))
        seconds = about["seconds"]
        return cls(config, catalog, tokenizer, vectors, encoder, scaling, seconds, sources)

    @classmethod
    def load_for(cls, split: Split, folder: Path) -> CodedCatalog:
        """As ``load``, for an experiment: what the codes know must not be what it asks.

        Raises:
            InputError: as ``load``, and when the codes were learnt from interactions that may hold
                answers of the split.
        """
        coded = cls.load(folder)
        found = check_codes(split, coded.learnt_from)
        for finding in found:
            if finding.severity == "leak":
                raise InputError(
                    f"{folder}: {finding.message}. Fit codes anew on the data and the split of "
                    f"this experiment (foretaste codes fit --data ... --split {split.kind}), with "
                    "a --run of the same, or leave out model.codes_from."
                )
        return replace(coded, warnings=tuple(f"{folder}: {one.message}." for one in found))


def codes_learnt_from(folder: Path) -> tuple[LearntFrom, ...]:
    """What interactions went into the codes of a folder, for ``check_leakage``.

    Raises:
        InputError: when it is no folder of codes.
    """
    about, config = _read_about(folder)
    # The vectors of a large catalog are not read for nothing.
    told = "learnt_from" in about
    several = not told and "scales" in read_arrays(folder / "vectors.safetensors", again=FIT_AGAIN)
    return _recorded(about, config, several=several)


def _read_about(folder: Path) -> tuple[dict[str, Any], CodingConfig]:
    """What ``coding.json`` says, and the configuration in it."""
    place = folder / "coding.json"
    try:
        about: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        values, about["seconds"] = about["config"], float(about["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: not a folder of codes ({place.name}: {type(error).__name__}). Make one "
            "with: foretaste codes fit"
        ) from error
    return about, build_config(CodingConfig, values, place=str(place))


def _recorded(
    about: dict[str, Any], config: CodingConfig, *, several: bool
) -> tuple[LearntFrom, ...]:
    """What is recorded of interactions; of an earlier version's codes, what must have been used.

    Args:
        about: what ``coding.json`` says.
        config: how the codes were made.
        several: whether texts and vectors were put together.
    """
    if isinstance(written := about.get("learnt_from"), list):
        return tuple(LearntFrom.from_json(one) for one in written)
    vectors = several or config.text is None or not about.get("texts", True)
    together = find(config.tokenizer.kind).reads_histories
    used = ((VECTORS, vectors), (TOGETHER, together))
    return tuple(LearntFrom(what) for what, is_used in used if is_used)


def code_catalog(
    catalog: Catalog,
    config: CodingConfig | None = None,
    *,
    item_vectors: np.ndarray | None = None,
    sequences: Sequences | None = None,
    vectors_from: LearntFrom | None = None,
    context: FitContext | None = None,
    cache: Path | None = None,
) -> CodedCatalog:
    """Give every item of a catalog codes.

    Args:
        catalog: the items: for a model, those of ``split.catalog``, so that nothing is learnt from
            items that came after the cut.
        config: how.
        item_vectors: float ``[items, D]`` from elsewhere, such as ``vectors_of`` a trained model; a
            zero row means that nothing is known of the item. They are coded alone where no text
            has a word.
        sequences: training histories over the catalog's numbers, for tokenizers that use what is
            chosen together: ``split.train``.
        vectors_from: the interactions that ``item_vectors`` were learnt from. Without it
            experiments on these codes warn that they cannot tell whether their answers were seen.
        context: seed, device, progress.
        cache: a file that keeps the vectors of text models, ``off`` for none; None for the usual.

    Raises:
        InputError: when nothing is known of the items, or something given does not fit.
    """
    config, context = config or CodingConfig(), context or FitContext()
    encoder = None
    if config.text is not None:
        texts = item_texts(catalog, config.fields)
        plain = isinstance(config.text, TfidfConfig)
        told = pl.Series(texts, dtype=pl.String).str.contains(WORD).any() if plain else any(texts)
        if told or item_vectors is None:
            encoder = encoder_for(
                config.text, texts, cache=cache, seed=context.seed, progress=context.progress
            )
    sources = _sources(config, catalog, encoder, item_vectors, context)
    if not sources:
        raise InputError(
            "codes: nothing to make codes of. Choose --text, or give vectors of a trained run."
        )
    scaling = Scaling.fit(sources) if len(sources) > 1 else None
    vectors = sources[0].vectors if scaling is None else scaling.combine(sources)
    tokenizer = find(config.tokenizer.kind)(config.tokenizer)
    begin = time.perf_counter()
    tokenizer.fit(vectors, item_ids=catalog.frame["item_id"], sequences=sequences, context=context)
    seconds = time.perf_counter() - begin
    learnt_from = [vectors_from or LearntFrom(VECTORS)] if item_vectors is not None else []
    if tokenizer.reads_histories and sequences is not None:
        learnt_from.append(LearntFrom.of(TOGETHER, catalog, sequences))
    return CodedCatalog(
        config, catalog, tokenizer, vectors, encoder, scaling, seconds, tuple(learnt_from)
    )


def _sources(
    config: CodingConfig,
    catalog: Catalog,
    encoder: TextEncoder | None,
    item_vectors: np.ndarray | None,
    context: FitContext | None = None,
) -> list[Source]:
    """Text first, then what was given."""
    sources = []
    if encoder is not None:
        progress = context.progress if context else None
        texts = encoder.encode(item_texts(catalog, config.fields), progress)
        sources.append(Source("text", texts, config.text_weight))
    if item_vectors is not None:
        if len(item_vectors) != len(catalog):
            raise InputError(
                f"vectors of {len(item_vectors):,} items for a catalog of {len(catalog):,}. Give a "
                "row for each item, in the order of the catalog."
            )
        plain = np.asarray(item_vectors, np.float32)
        sources.append(Source("vectors", plain, config.vectors_weight))
    return sources


def vectors_of(recommender: Recommender, catalog: Catalog) -> np.ndarray:
    """Item vectors of a trained model for the items of a catalog, float32 ``[items, D]``.

    An item that the model does not know has the zero vector.

    Raises:
        InputError: when the model has no item vectors, or knows none of the items.
    """
    factors = getattr(recommender, "factors", None)
    if isinstance(recommender, SequenceRecommender):
        factors = recommender.network.catalog()
    if factors is None or recommender.catalog is None:
        raise InputError(
            f"{recommender.name}: has no item vectors. Give a run of a sequence model such as "
            "sasrec, or of als."
        )
    own = factors.detach().float().cpu().numpy()
    numbers = recommender.catalog.numbers(catalog.item_ids)
    if (numbers < 0).all():
        raise InputError(
            f"{recommender.name}: the run knows none of the {len(catalog):,} items. Give a run on "
            "the same data."
        )
    return np.where(numbers[:, None] >= 0, own[np.maximum(numbers, 0)], np.float32(0))
