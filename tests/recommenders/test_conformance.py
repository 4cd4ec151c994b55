"""What every recommender does, whatever it has learnt. A new model is tested by being a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.recommenders.core.base import Recommender, RunContext
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.registry import find, names
from foretaste.storage import read_arrays, write_arrays

from .generators import small_codes

TINY = {
    "dim": 16,
    "hidden": 16,
    "factors": 2,
    "max_length": 10,
    "dropout": 0.1,
    "l2": 1.0,
    "shrink": 0.0,
    "regularization": 0.01,
}
TRAIN = {"batch_tokens": 128, "learning_rate": 1e-2, "warmup_steps": 10, "validate_queries": 50}
NOT_PERSONAL = {"popularity"}
WEIGHTS = "weights.safetensors"

Fitted = Callable[[str], Recommender]


def tiny(name: str, epochs: int = 2, **parameters) -> Recommender:
    """An unfitted model as small as its configuration allows."""
    known = find(name).Config.model_fields
    # Validated once, so that the weights are those of the last epoch.
    train = {"train": {**TRAIN, "epochs": epochs, "validate_every": epochs}}
    wanted: dict[str, Any] = TINY | train | small_codes(name) | parameters
    return find(name)(**{key: value for key, value in wanted.items() if key in known})


@pytest.fixture(scope="module")
def fitted(ordinary: Split) -> Fitted:
    """Models fitted on the ordinary log, each once."""
    models: dict[str, Recommender] = {}

    def get(name: str) -> Recommender:
        if name not in models:
            models[name] = tiny(name)
            models[name].fit(ordinary, RunContext(seed=3))
        return models[name]

    return get


@pytest.fixture(scope="module")
def saved(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of the fitted models, each written once. Copy before spoiling."""
    folders: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            fitted(name).save(folders[name])
        return folders[name]

    return get


def scores(model: Recommender, histories: Sequences, **options) -> np.ndarray:
    """All scores at once, float32 ``[queries, items]``."""
    found = np.empty((len(histories), len(model.popularity)), np.float32)
    for rows, block in model.scores(histories, **options):
        found[rows] = block.cpu().numpy()
    return found


every_model = pytest.mark.parametrize("name", names())


# --- The same answer, however it is asked ------------------------------------------------------


@every_model
def test_batch_equals_single(name: str, fitted: Fitted, ordinary: Split):
    model, histories = fitted(name), ordinary.test.histories
    together = scores(model, histories)
    for row in range(0, len(histories), 7):
        alone = scores(model, histories.take(np.array([row])))
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


@every_model
def test_answers_do_not_depend_on_blocks(name: str, fitted: Fitted, ordinary: Split):
    model, histories = fitted(name), ordinary.test.histories
    whole = scores(model, histories)
    for block in (1, 7):
        parts = scores(model, histories, block=block)
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)
    one = rank_queries(model, ordinary.test, ["ndcg@10"], block=3).metrics["ndcg@10"]
    other = rank_queries(model, ordinary.test, ["ndcg@10"]).metrics["ndcg@10"]
    np.testing.assert_allclose(one, other, atol=1e-6)


@every_model
def test_save_load_equals_original(name: str, fitted: Fitted, saved, ordinary: Split):
    again = Recommender.load(saved(name))
    assert type(again) is find(name)
    assert again.config == fitted(name).config
    one = fitted(name).recommend(ordinary.test.histories, 10)
    other = again.recommend(ordinary.test.histories, 10)
    np.testing.assert_array_equal(one.items, other.items)
    np.testing.assert_array_equal(one.scores, other.scores)


@every_model
def test_same_seed_same_answer(name: str, fitted: Fitted, ordinary: Split):
    again = tiny(name)
    again.fit(ordinary, RunContext(seed=3))
    histories = ordinary.test.histories
    np.testing.assert_array_equal(scores(again, histories), scores(fitted(name), histories))


@every_model
def test_a_second_fit_forgets_the_first(
    name: str, fitted: Fitted, ordinary: Split, checkerboard: Split
):
    model = tiny(name)
    model.fit(checkerboard, RunContext(seed=8))
    model.fit(ordinary, RunContext(seed=3))
    histories = ordinary.test.histories
    np.testing.assert_array_equal(scores(model, histories), scores(fitted(name), histories))


@every_model
def test_the_fingerprint_follows_what_was_learnt(
    name: str, fitted: Fitted, saved, ordinary: Split, checkerboard: Split
):
    model = fitted(name)
    assert Recommender.load(saved(name)).fingerprint == model.fingerprint
    other = tiny(name)
    other.fit(checkerboard, RunContext(seed=3))
    assert other.fingerprint != model.fingerprint


# --- What is asked -----------------------------------------------------------------------------


@every_model
def test_unseen_user_and_ids(name: str, fitted: Fitted):
    found = fitted(name).recommend([["i0003", "i0001"], ["nonsense"], ["i0003", "no", "i0001"]], 5)
    assert found.unknown.tolist() == [0, 1, 1]
    assert (found.items >= 0).all()
    # Ids that are not known change nothing.
    np.testing.assert_array_equal(found.items[0], found.items[2])
    np.testing.assert_allclose(found.scores[0], found.scores[2], rtol=1e-4, atol=1e-5)


@every_model
def test_numbers_outside_the_catalog_are_ignored(name: str, fitted: Fitted, ordinary: Split):
    numbers = Sequences.from_lists([[2, -1, 4, ordinary.items, 2**31 - 1]])
    found = fitted(name).recommend(numbers, 5)
    assert found.unknown.tolist() == [3]
    same = fitted(name).recommend(Sequences.from_lists([[2, 4]]), 5)
    np.testing.assert_array_equal(found.items, same.items)


@every_model
def test_seen_items_stay_out_unless_asked_for(name: str, fitted: Fitted, ordinary: Split):
    model, histories = fitted(name), ordinary.test.histories
    short = model.recommend(histories, ordinary.items)
    free = model.recommend(histories, ordinary.items, exclude="none")
    for row, history in enumerate(histories):
        shown = short.items[row][short.items[row] >= 0]
        assert sorted(set(shown) | set(history)) == list(range(ordinary.items))
        assert not set(shown) & set(history)
        assert sorted(free.items[row]) == list(range(ordinary.items))


@every_model
def test_empty_history_answers_popular_items(name: str, fitted: Fitted, ordinary: Split):
    found = fitted(name).recommend([[], ["i0000"], []], 3)
    best = np.sort(ordinary.popularity)[::-1][:3]
    for row in (0, 2):
        np.testing.assert_array_equal(ordinary.popularity[found.items[row]], best)


@every_model
def test_no_query_at_all(name: str, fitted: Fitted):
    found = fitted(name).recommend([], 4)
    assert found.items.shape == (0, 4)
    assert found.item_ids == []


@every_model
def test_k_of_any_size(name: str, fitted: Fitted, ordinary: Split):
    model = fitted(name)
    whole = model.recommend([["i0000"]], 10_000)
    assert len(whole[0]) == ordinary.items - 1
    first = model.recommend([["i0000"]], 1)
    assert first.items.shape == (1, 1)
    assert first.items[0, 0] == whole.items[0, 0]
    assert (np.diff(whole.scores[0][:-1]) <= 0).all()
    with pytest.raises(InputError, match="k = 0"):
        model.recommend([["i0000"]], 0)


@every_model
def test_candidates_restrict(name: str, fitted: Fitted):
    model = fitted(name)
    found = model.recommend([["i0000"], []], 5, candidates=["i0002", "i0000", "nonsense"])
    assert found.item_ids[0] == ["i0002"]
    assert sorted(found.item_ids[1]) == ["i0000", "i0002"]
    with pytest.raises(InputError, match="candidates"):
        model.recommend([["i0000"]], 5, candidates=["nonsense"])
    with pytest.raises(InputError, match="candidates"):
        model.recommend([["i0000"]], 5, candidates=[])


@every_model
def test_scores_of_warm_users_are_finite(name: str, fitted: Fitted, ordinary: Split):
    found = scores(fitted(name), ordinary.test.histories, exclude="none")
    assert np.isfinite(found).all()


@every_model
def test_long_and_repeated_histories(name: str, fitted: Fitted):
    rows = [["i0001"] * 300, [f"i{item:04}" for item in range(25)] * 9, ["i0002"]]
    found = fitted(name).recommend(rows, 3)
    assert (found.items >= 0).all()
    assert np.isfinite(found.scores).all()


# --- What is wrong -----------------------------------------------------------------------------


@every_model
def test_unfitted_is_said(name: str, tmp_path: Path):
    with pytest.raises(InputError, match="Call fit or load"):
        tiny(name).recommend([["i0000"]])
    with pytest.raises(InputError, match="Call fit or load"):
        tiny(name).save(tmp_path)


@every_model
def test_unknown_key_names_the_nearest(name: str):
    field = next(iter(find(name).Config.model_fields))
    with pytest.raises(InputError, match=f'{name}: unknown key.*"{field}"'):
        find(name)(**{field + "x": cast(Any, 1)})


@every_model
def test_strings_instead_of_lists_are_said(name: str, fitted: Fitted):
    for wrong in ("i0000", ["i0000", "i0001"]):
        with pytest.raises(InputError, match="list of lists"):
            fitted(name).recommend(wrong)
    with pytest.raises(InputError, match="candidates must be a list"):
        fitted(name).recommend([["i0000"]], candidates="i0001")
    with pytest.raises(InputError, match="exclude"):
        fitted(name).recommend([["i0000"]], exclude="sen")  # type: ignore[arg-type]


@every_model
def test_damaged_weights_are_said(name: str, saved, tmp_path: Path):
    folder = shutil.copytree(saved(name), tmp_path / "copy")
    good = (folder / WEIGHTS).read_bytes()
    rng = np.random.default_rng(0)
    for length in [0, 4, 8, 60, len(good) // 2, len(good) - 1]:
        (folder / WEIGHTS).write_bytes(good[:length])
        with pytest.raises(InputError, match="safetensors"):
            Recommender.load(folder)
    for place in rng.integers(0, len(good), 25):
        spoilt = bytearray(good)
        spoilt[place] ^= 1 << int(rng.integers(8))
        (folder / WEIGHTS).write_bytes(spoilt)
        try:
            Recommender.load(folder).recommend([["i0000"]])
        except InputError:
            continue
        pytest.fail(f"byte {place} was changed, and nobody noticed")


@every_model
def test_foreign_weights_are_said(
    name: str, saved, tmp_path: Path, checkerboard: Split, ordinary: Split
):
    folder = shutil.copytree(saved(name), tmp_path / "copy")
    own = read_arrays(folder / WEIGHTS)
    narrow = {key: value[..., :1] for key, value in own.items() if key != "popularity"}
    for arrays in (
        {"popularity": ordinary.popularity},
        {"popularity": ordinary.popularity, "foreign": np.zeros(3)},
        {"popularity": checkerboard.popularity},
        {"popularity": ordinary.popularity, **narrow},
        {},
    ):
        write_arrays(folder / WEIGHTS, arrays)
        with pytest.raises(InputError, match=WEIGHTS):
            Recommender.load(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match=WEIGHTS):
        Recommender.load(folder)


@every_model
def test_damaged_description_and_catalog_are_said(name: str, saved, tmp_path: Path):
    folder = shutil.copytree(saved(name), tmp_path / "copy")
    good = (folder / "model.json").read_text()
    for wrong in (
        "",
        good[:-9],
        "[]",
        "{}",
        '{"name": 3, "config": {}}',
        json.dumps({"name": "nobody", "config": {}}),
        json.dumps({"name": name, "config": {"config": {}}}),
        json.dumps({"name": name, "config": {"wrong key": 1}}),
        good.replace('"version": ', '"version": 0.'),
    ):
        (folder / "model.json").write_text(wrong)
        with pytest.raises(InputError):
            Recommender.load(folder)
    (folder / "model.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError):
        Recommender.load(folder)
    (folder / "model.json").write_text(good)
    catalog = (folder / "catalog.parquet").read_bytes()
    for length in (0, 10, len(catalog) // 2, len(catalog) - 1):
        (folder / "catalog.parquet").write_bytes(catalog[:length])
        with pytest.raises(InputError, match="catalog"):
            Recommender.load(folder)
    (folder / "catalog.parquet").unlink()
    with pytest.raises(InputError, match="catalog"):
        Recommender.load(folder)


@every_model
def test_another_version_is_said(name: str, saved, tmp_path: Path):
    folder = shutil.copytree(saved(name), tmp_path / "copy")
    description = json.loads((folder / "model.json").read_text())
    current = description.pop("version")
    for written, which in ((current - 1, "an earlier"), (current + 1, "a later")):
        (folder / "model.json").write_text(json.dumps(description | {"version": written}))
        with pytest.raises(InputError, match=f"copy: was written by {which} version"):
            Recommender.load(folder)
    (folder / "model.json").write_text(json.dumps(description))  # as they were written at first
    if current > 1:
        with pytest.raises(InputError, match="an earlier version.*trained again"):
            Recommender.load(folder)
    else:
        assert Recommender.load(folder).fingerprint == description["fingerprint"]


@every_model
def test_another_class_is_said(name: str, saved):
    other = "sasrec" if name != "sasrec" else "ease"
    with pytest.raises(InputError, match=f"holds a {name}, not a {other}"):
        find(other).load(saved(name))


@every_model
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([[0, 0], [0, 0, 0]], id="one item"),
        pytest.param([[0, 1, 2, 3, 4]], id="one user"),
        pytest.param([[0, 1], [1, 2], [2, 0]], id="one event each"),
        pytest.param([[0, 1, 2], [1, 2, 0], [2, 0, 1]], id="two events each, one asked"),
    ],
)
def test_smallest_logs_fit_or_say_why(name: str, rows: list[list[int]], split_of):
    try:
        tiny_split = split_of(rows)
    except InputError:
        return  # said before any model is asked
    model = tiny(name)
    try:
        model.fit(tiny_split)
    except InputError as error:
        assert "\n" not in str(error)
        with pytest.raises(InputError, match="Call fit or load"):
            model.recommend([["i0000"]])
        return
    found = model.recommend([["i0000"], []], 3, exclude="none")
    assert (found.items[:, 0] >= 0).all()
    assert np.isfinite(found.scores[:, 0]).all()


# --- What is learnt ----------------------------------------------------------------------------
