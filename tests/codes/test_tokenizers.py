"""What every tokenizer promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foretaste.codes.checking import check_vectors
from foretaste.codes.table import Codes
from foretaste.codes.tokenizer import TOKENIZERS, FitContext, Tokenizer, find
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.storage import read_arrays_about, write_arrays

from .catalogs import clusters

SMALL: dict[str, dict[str, Any]] = {
    "rqkmeans": {"levels": 3, "size": 8},
    "rqvae": {"levels": 3, "size": 8, "dim": 4, "hidden": (16,), "steps": 60, "batch_items": 64},
    "coba": {"levels": 3, "size": 8, "dim": 4, "hidden": (16,), "steps": 60, "batch_items": 64},
    "opq": {"levels": 3, "size": 8, "rounds": 5},
}
ITEMS = 60


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clusters(ITEMS, 10, 8)


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    rng = np.random.default_rng(0)
    return Sequences.from_lists([rng.integers(0, ITEMS, 6).tolist() for _ in range(50)])


def fitted(
    name: str, vectors: np.ndarray, sequences: Sequences, seed: int = 0, **other: Any
) -> Tokenizer:
    tokenizer = find(name)(**SMALL[name] | other)
    tokenizer.fit(vectors, sequences=sequences, context=FitContext(seed, "cpu"))
    return tokenizer


def codes_of(tokenizer: Tokenizer) -> Codes:
    assert tokenizer.codes is not None
    return tokenizer.codes


@pytest.mark.parametrize("name", TOKENIZERS)
class TestEveryTokenizer:
    def test_every_item_has_codes_of_its_own(self, name, vectors, sequences) -> None:
        codes = codes_of(fitted(name, vectors, sequences))
        assert codes.table.shape == (ITEMS, 3)
        assert codes.table.dtype == np.int32
        assert codes.sizes == (8, 8, 8)
        assert len(np.unique(codes.table, axis=0)) == ITEMS
        assert len(np.unique(codes.nearest, axis=0)) < ITEMS  # 60 items in 8 tight clusters
        assert [book.shape[0] for book in codes.codebooks] == [8, 8, 8]

    def test_an_extra_level_tells_items_apart_too(self, name, vectors, sequences) -> None:
        codes = codes_of(fitted(name, vectors, sequences, unique="extra"))
        assert codes.table.shape == (ITEMS, 4)
        assert len(np.unique(codes.table, axis=0)) == ITEMS
        same = np.unique(codes.nearest, axis=0, return_counts=True)[1].max()
        assert codes.sizes == (8, 8, 8, min(same, 8))

    def test_items_that_are_alike_share_their_first_code(self, name, vectors, sequences) -> None:
        if name == "coba":
            sequences = Sequences.from_lists([[0, 8], [1, 9]])  # of one cluster each
        nearest = codes_of(fitted(name, vectors, sequences)).nearest
        same = nearest[:, None, 0] == nearest[None, :, 0]
        alike = (np.arange(ITEMS)[:, None] - np.arange(ITEMS)) % 8 == 0
        assert same[alike].mean() > 0.9
        assert same[~alike].mean() < 0.5

    def test_the_same_seed_gives_the_same_codes(self, name, vectors, sequences) -> None:
        first = codes_of(fitted(name, vectors, sequences))
        np.random.default_rng().random()
        again = codes_of(fitted(name, vectors, sequences))
        assert np.array_equal(first.table, again.table)
        assert all(map(np.array_equal, first.codebooks, again.codebooks))
        other = codes_of(fitted(name, vectors, sequences, seed=1))
        assert not np.array_equal(first.table, other.table)

    def test_vectors_are_left_as_they_are(self, name, vectors, sequences) -> None:
        before = vectors.copy()
        fitted(name, vectors, sequences)
        assert np.array_equal(before, vectors)

    def test_a_file_mapped_into_memory_and_read_in_parts_gives_the_same(
        self, name, vectors, sequences, tmp_path, monkeypatch
    ) -> None:
        whole = codes_of(fitted(name, vectors, sequences))
        np.save(tmp_path / "vectors.npy", vectors)
        mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
        monkeypatch.setattr("foretaste.codes.tokenizer.ITEMS_AT_ONCE", 7)
        assert np.array_equal(codes_of(fitted(name, mapped, sequences)).table, whole.table)

    def test_new_items_get_free_codes_near_their_like(self, name, vectors, sequences) -> None:
        if name == "coba":
            sequences = Sequences.from_lists([[0, 8], [1, 9]])
        tokenizer = fitted(name, vectors[8:], sequences)
        codes = codes_of(tokenizer)
        new = tokenizer.assign(vectors[:4])
        assert new.dtype == np.int32
        longer = codes.with_items([f"new {n}" for n in range(4)], new)
        assert np.array_equal(longer.table[:-4], codes.table)
        further = tokenizer.assign(vectors[:4], longer)
        longer.with_items([f"newer {n}" for n in range(4)], further)
        near = codes.nearest[:4]  # items 8 to 11 lie where the new ones do
        assert (new[:, 0] == near[:, 0]).mean() >= 0.5

    @pytest.mark.parametrize("unique", ["nearest", "extra"])
    def test_saved_and_read_again_it_answers_the_same(
        self, name, vectors, sequences, unique, tmp_path
    ) -> None:
        tokenizer = fitted(name, vectors, sequences, unique=unique)
        path = tmp_path / "codes.safetensors"
        tokenizer.save(path)
        again = Tokenizer.load(path, "cpu")
        assert type(again) is type(tokenizer)
        assert again.config == tokenizer.config
        assert np.array_equal(codes_of(again).table, codes_of(tokenizer).table)
        new = clusters(5, 10, 8, seed=3)
        assert np.array_equal(again.assign(new), tokenizer.assign(new))
        table = codes_of(tokenizer).table
        assert np.array_equal(again.reconstruct(table), tokenizer.reconstruct(table))
        assert np.array_equal(Codes.load(path).table, table)

    def test_what_codes_stand_for_is_near_the_vectors(self, name, vectors, sequences) -> None:
        config = {"steps": 300} if name in ("rqvae", "coba") else {}
        if name == "coba":
            sequences = Sequences.from_lists([[0, 8], [1, 9]])
        tokenizer = fitted(name, vectors, sequences, **config)
        missed = np.square(vectors - tokenizer.reconstruct(codes_of(tokenizer).nearest)).sum(1)
        spread = np.square(vectors - vectors.mean(0)).sum(1)
        assert missed.mean() < 0.3 * spread.mean()

    def test_bad_input_is_refused(self, name, vectors, sequences) -> None:
        broken = vectors.copy()
        broken[7, 2] = np.nan
        with pytest.raises(InputError, match="the vector of item 7 is not finite"):
            fitted(name, broken, sequences)
        with pytest.raises(InputError, match="5 items are fewer than the 8 codes .* Lower size.$"):
            fitted(name, vectors[:5], sequences)
        with pytest.raises(InputError, match='"a" is there twice'):
            find(name)(**SMALL[name]).fit(vectors[:8], item_ids=["a", "a", *"bcdefg"])
        with pytest.raises(InputError, match="3 item ids for 60 vectors"):
            find(name)(**SMALL[name]).fit(vectors, item_ids=["a", "b", "c"])
        with pytest.raises(InputError, match="not fitted yet"):
            find(name)().assign(vectors)
        tokenizer = fitted(name, vectors, sequences)
        with pytest.raises(InputError, match="vectors of 4 numbers, learnt were 10"):
            tokenizer.assign(vectors[:, :4])
        with pytest.raises(InputError, match="480 items for 452 free codes"):
            tokenizer.assign(np.tile(vectors, (8, 1)))


@pytest.mark.parametrize("name", ["rqkmeans", "rqvae", "opq"])  # coba smooths its old items
def test_an_old_item_asked_as_new_has_its_own_nearest_codes(name, vectors, sequences) -> None:
    tokenizer = fitted(name, vectors, sequences)
    assert np.array_equal(tokenizer._nearest(vectors)[0], codes_of(tokenizer).nearest)


def test_new_items_beside_a_part_of_the_catalog_get_ranks_that_are_free(vectors) -> None:
    crowd = np.repeat(vectors[:8], 4, axis=0)
    tokenizer = find("rqkmeans")(levels=2, size=8, unique="extra")
    whole = tokenizer.fit(crowd)
    part = whole.for_items(whole.item_ids.filter(whole.table[:, -1] > 0))
    new = tokenizer.assign(np.repeat(vectors[:1], 2, axis=0), part)
    both = part.with_items(["new", "newer"], new)  # refuses codes that are there already
    assert both.table[-2:, -1].min() == 0


def test_items_without_a_text_all_get_codes(vectors) -> None:
    silent = vectors.copy()
    silent[20:40] = 0
    codes = codes_of(fitted("rqkmeans", silent, Sequences.from_lists([])))
    assert len(np.unique(codes.table[20:40], axis=0)) == 20
    assert len(np.unique(codes.nearest[20:40], axis=0)) == 1


def test_codebooks_are_learnt_from_a_part(vectors) -> None:
    many = np.tile(vectors, (4, 1)) + np.random.default_rng(0).normal(0, 0.1, (240, 10))
    tokenizer = find("rqkmeans")(levels=3, size=8, fit_items=100)
    codes = tokenizer.fit(many.astype(np.float32), context=FitContext(0, "cpu"))
    missed = np.square(many - tokenizer.reconstruct(codes.nearest)).sum(1).mean()
    assert len(codes) == 240
    assert missed < 0.05 * np.square(many - many.mean(0)).sum(1).mean()


@pytest.mark.parametrize("device", ["mps", "gpu"])
def test_a_device_that_is_not_here_is_said(device: str, vectors, monkeypatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(InputError, match=f"--device {device}: there is none here. Choose cpu"):
        find("rqkmeans")(levels=3, size=4).fit(vectors, context=FitContext(0, device))


def test_more_items_than_codes_are_refused(vectors) -> None:
    with pytest.raises(InputError, match="60 items for 16 free codes. Take more levels"):
        find("rqkmeans")(levels=2, size=4).fit(vectors)


def test_coba_needs_histories_of_its_own_items(vectors) -> None:
    tokenizer = find("coba")(**SMALL["coba"])
    with pytest.raises(InputError, match="needs training histories"):
        tokenizer.fit(vectors)
    with pytest.raises(InputError, match="histories hold item 60, vectors are of 60"):
        tokenizer.fit(vectors, sequences=Sequences.from_lists([[1, 60]]))


def test_coba_uses_its_codes_more_evenly_than_rqvae() -> None:
    from foretaste.codes.report import level_use

    # A few crowded clusters and many small ones: what balancing is for.
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((40, 8))
    own = rng.choice(40, 600, p=np.arange(40, 0, -1) ** 2 / (np.arange(1, 41) ** 2).sum())
    vectors = (centres[own] + 0.3 * rng.standard_normal((600, 8))).astype(np.float32)
    lonely = Sequences.from_lists([[0, 1]])
    config = {"levels": 2, "size": 32, "dim": 8, "hidden": (32,), "steps": 200, "batch_items": 128}
    use = {}
    for name in ("rqvae", "coba"):
        nearest = (
            find(name)(**config)
            .fit(vectors, sequences=lonely, context=FitContext(0, "cpu"))
            .nearest
        )
        use[name] = sum(level_use(nearest[:, level], 32).perplexity for level in range(2))
    assert use["coba"] > use["rqvae"]


def test_no_new_items_get_no_codes(vectors, sequences) -> None:
    tokenizer = fitted("rqkmeans", vectors, sequences)
    assert tokenizer.assign(vectors[:0]).shape == (0, 3)
    assert tokenizer.reconstruct(codes_of(tokenizer).table[:0]).shape == (0, 10)


def test_training_that_comes_to_nothing_is_told(vectors) -> None:
    parameters: dict[str, Any] = SMALL["rqvae"] | {"learning_rate": 1e30}
    tokenizer = find("rqvae")(**parameters)
    with pytest.raises(InputError, match="training came to no numbers. Lower"):
        tokenizer.fit(vectors, context=FitContext(0, "cpu"))
    with pytest.raises(InputError, match="not fitted yet"):
        tokenizer.assign(vectors)


@pytest.mark.parametrize("name", ["rqkmeans", "opq"])
def test_vectors_whose_distances_are_no_numbers_are_told(name: str, vectors) -> None:
    largest = np.float32(9e14)  # codes are made, and every figure of them is a number
    tokenizer = find(name)(**SMALL[name])
    tokenizer.fit(vectors / np.abs(vectors).max() * largest, context=FitContext(0, "cpu"))
    with pytest.raises(InputError, match=r"item 3 has a number of size 2e\+30, beyond 1e\+15. Div"):
        huge = vectors.copy()
        huge[3, 1] = -2e30
        find(name)(**SMALL[name]).fit(huge)


def test_slots_need_numbers_to_cut() -> None:
    with pytest.raises(InputError, match="vectors of 3 numbers cannot be cut into 4 slots"):
        find("opq")(size=4).fit(clusters(20, 3, 4))


def test_rotation_helps() -> None:
    rng = np.random.default_rng(0)
    mixed = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    vectors = (clusters(400, 4, 40) @ mixed[:4]).astype(np.float32)
    vectors += 0.1 * rng.standard_normal(vectors.shape).astype(np.float32)
    error = {}
    for rounds in (0, 40):
        tokenizer = find("opq")(levels=2, size=32, rounds=rounds)
        codes = tokenizer.fit(vectors, context=FitContext(0, "cpu"))
        error[rounds] = np.square(vectors - tokenizer.reconstruct(codes.nearest)).mean()
    assert error[40] < 0.8 * error[0]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"levls": 3}, 'rqkmeans: unknown key "levls". Did you mean "levels"?'),
        ({"levels": 0}, "rqkmeans: levels = 0: input should be greater than or equal to 1"),
        ({"unique": "perhaps"}, "rqkmeans: unique = 'perhaps': input should be 'nearest' or"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        find("rqkmeans")(**parameters)
    assert message in str(error.value)


def test_names() -> None:
    assert [find(name).name for name in TOKENIZERS] == list(TOKENIZERS)
    with pytest.raises(InputError, match='no tokenizer is called "rqvea". Did you mean "rqvae"'):
        find("rqvea")
    config = find("opq").Config()
    with pytest.raises(InputError, match="give a Config or keywords"):
        find("opq")(config, levels=2)


def test_files_that_are_no_tokenizer_are_refused(vectors, sequences, tmp_path) -> None:
    path = tmp_path / "codes.safetensors"
    codes_of(fitted("rqkmeans", vectors, sequences)).save(path)
    with pytest.raises(InputError, match="codes without a tokenizer"):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    "wrong", [np.zeros(3), np.zeros((3, 0)), np.zeros((3, 2), int), np.zeros((2, 2, 2))]
)
def test_vectors_of_another_form_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"here: item vectors are .*, not float \[items, D\]"):
        check_vectors(wrong, "here: ")


@pytest.mark.parametrize("name", ["rqkmeans", "opq"])
def test_files_that_lack_a_part_are_refused(name: str, vectors, sequences, tmp_path) -> None:
    path = tmp_path / "whole.safetensors"
    fitted(name, vectors, sequences).save(path)
    arrays, about = read_arrays_about(path)
    for part in ("config", "seed", "width", "sizes", "ordered"):
        write_arrays(path, arrays, {key: value for key, value in about.items() if key != part})
        with pytest.raises(InputError, match=rf"not a whole .*\('{part}'\)\. Fit"):
            Tokenizer.load(path)
    for part in arrays:
        write_arrays(path, {key: one for key, one in arrays.items() if key != part}, about)
        with pytest.raises(InputError, match=r"whole\.safetensors: not a whole .* again\.$"):
            Tokenizer.load(path)
