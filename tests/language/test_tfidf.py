"""TF-IDF and SVD against hand computation and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.errors import InputError
from foretaste.language import tfidf
from foretaste.language.tfidf import Tfidf, TfidfConfig

TEXTS = ["red shoe", "red hat", "blue shoe", "blue hat", "green tea", "green tea leaves"]


def plain(**other) -> TfidfConfig:
    return TfidfConfig(min_count=1, ngrams=1, **other)


def test_cosines_of_all_directions_are_those_of_the_weights() -> None:
    terms = sorted({word for text in TEXTS for word in text.split()})
    counts = np.array([[text.split().count(term) for term in terms] for text in TEXTS], float)
    idf = np.log((1 + len(TEXTS)) / (1 + (counts > 0).sum(0))) + 1
    weights = counts * idf
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    learnt = Tfidf.fit(TEXTS, plain(dim=50))
    assert learnt.terms.to_list() == terms
    vectors = learnt.encode(TEXTS)
    np.testing.assert_allclose(vectors @ vectors.T, weights @ weights.T, atol=1e-5)


def test_the_directions_are_the_strongest_singular_ones() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(80)]
    texts = [" ".join(rng.choice(words, 6, p=np.arange(80, 0, -1) / 3240)) for _ in range(200)]
    learnt = Tfidf.fit(texts, plain(dim=8))
    whole = learnt._weighted(texts).toarray()
    right = np.linalg.svd(whole, full_matrices=False)[2][:8]
    strength = np.linalg.norm(whole @ learnt.directions) / np.linalg.norm(whole @ right.T)
    assert 0.99 < strength < 1.0001
    np.testing.assert_allclose(learnt.directions.T @ learnt.directions, np.eye(8), atol=1e-4)


def test_alike_texts_have_alike_vectors() -> None:
    vectors = Tfidf.fit(TEXTS, TfidfConfig(dim=3, min_count=1)).encode(TEXTS)
    alike = vectors @ vectors.T
    assert alike[4, 5] > 0.8
    assert abs(alike[0, 4]) < 0.2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=8))
def test_any_text_has_a_vector_of_length_one_or_zero(texts: list[str]) -> None:
    vectors = Tfidf.fit([*texts, "a word"], plain(dim=4)).encode([*texts, "", "unheardof"])
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-4) | (lengths == 0))
    assert lengths[-2:].tolist() == [0, 0]
    assert np.isfinite(vectors).all()


def test_words_of_many_scripts() -> None:
    learnt = Tfidf.fit(
        ["日本語のテスト", "Ünïcode ÜNÏCODE", "\uff46\uff55\uff4c\uff4c \uff11\uff12"], plain(dim=4)
    )
    assert set("日本語のテスト") <= set(learnt.terms)
    assert {"ünïcode", "full", "12"} <= set(learnt.terms)
    pairs = Tfidf.fit(["new york", "york new"], TfidfConfig(min_count=1))
    assert pairs.terms.to_list() == ["new", "new york", "york", "york new"]


def test_pairs_do_not_reach_over_texts() -> None:
    assert "b c" not in Tfidf.fit(["a b", "c d"], TfidfConfig(min_count=1)).terms


def test_rare_terms_are_left_out_unless_nothing_else_is_there() -> None:
    assert Tfidf.fit(TEXTS, TfidfConfig(ngrams=1)).terms.to_list() == [
        *("blue", "green", "hat", "red", "shoe", "tea")
    ]
    assert len(Tfidf.fit(["one", "two"], TfidfConfig(ngrams=1)).terms) == 2
    assert Tfidf.fit(TEXTS, plain(max_terms=2)).terms.to_list() == ["blue", "green"]


def test_learning_from_a_part_and_encoding_in_parts(monkeypatch) -> None:
    whole = Tfidf.fit(TEXTS, plain(dim=4))
    expected = whole.encode(TEXTS)
    monkeypatch.setattr(tfidf, "TEXTS_AT_ONCE", 2)
    np.testing.assert_allclose(whole.encode(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(Tfidf.fit(TEXTS, plain(dim=4)).encode(TEXTS), expected, atol=1e-4)
    part = Tfidf.fit(TEXTS, plain(dim=4, fit_texts=2), seed=1)
    assert 0 < len(part.terms) <= 5
    assert (
        part.terms.to_list() == Tfidf.fit(TEXTS, plain(dim=4, fit_texts=2), seed=1).terms.to_list()
    )


def test_saved_and_read_again_it_says_the_same(tmp_path) -> None:
    learnt = Tfidf.fit([*TEXTS, "日本 tea"], plain(dim=3))
    np.savez(tmp_path / "text.npz", allow_pickle=False, **learnt.to_arrays())
    with np.load(tmp_path / "text.npz", allow_pickle=False) as arrays:
        again = Tfidf.from_arrays(dict(arrays))
    np.testing.assert_array_equal(again.encode(["green 日本"]), learnt.encode(["green 日本"]))


def test_texts_without_a_word_are_refused() -> None:
    with pytest.raises(InputError, match="no word in 2 texts"):
        Tfidf.fit(["", "!?"])
    with pytest.raises(InputError, match="no word in 0 texts"):
        Tfidf.fit([])
