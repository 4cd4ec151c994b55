"""One package for the whole life of a recommender.

The names below are the public ones. Each is imported when it is first used, so that
``import foretaste`` costs next to nothing and PyTorch is not loaded before a model is built.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretaste.data.catalog import Catalog as Catalog
    from foretaste.data.clicks import ClickTask as ClickTask
    from foretaste.data.clicks import rated_clicks as rated_clicks
    from foretaste.data.clicks import sampled_clicks as sampled_clicks
    from foretaste.data.dataset import Dataset as Dataset
    from foretaste.data.embedded_sets import read_embedded as read_embedded
    from foretaste.data.leakage import check_leakage as check_leakage
    from foretaste.data.reading import read_interactions as read_interactions
    from foretaste.data.sequences import Sequences as Sequences
    from foretaste.data.split import Queries as Queries
    from foretaste.data.split import Split as Split
    from foretaste.data.split import split as split
    from foretaste.data.titles import TitleIndex as TitleIndex
    from foretaste.errors import InputError as InputError
    from foretaste.experiments.comparing import compare as compare
    from foretaste.experiments.evaluating import evaluate as evaluate
    from foretaste.experiments.recipe import Recipe as Recipe
    from foretaste.experiments.run_folder import RunFolder as RunFolder
    from foretaste.experiments.running import resume as resume
    from foretaste.experiments.running import train as train
    from foretaste.recommenders.core.base import Recommender as Recommender
    from foretaste.recommenders.core.base import RunContext as RunContext

__version__ = "0.1.0"

_HOMES = {
    "Catalog": "data.catalog",
    "ClickTask": "data.clicks",
    "Dataset": "data.dataset",
    "InputError": "errors",
    "Queries": "data.split",
    "Recipe": "experiments.recipe",
    "Recommender": "recommenders.core.base",
    "RunContext": "recommenders.core.base",
    "RunFolder": "experiments.run_folder",
    "Sequences": "data.sequences",
    "Split": "data.split",
    "TitleIndex": "data.titles",
    "check_leakage": "data.leakage",
    "compare": "experiments.comparing",
    "evaluate": "experiments.evaluating",
    "rated_clicks": "data.clicks",
    "read_embedded": "data.embedded_sets",
    "read_interactions": "data.reading",
    "resume": "experiments.running",
    "sampled_clicks": "data.clicks",
    "split": "data.split",
    "train": "experiments.running",
}
"""Where each public name lives."""

__all__ = [
    "Catalog",
    "ClickTask",
    "Dataset",
    "InputError",
    "Queries",
    "Recipe",
    "Recommender",
    "RunContext",
    "RunFolder",
    "Sequences",
    "Split",
    "TitleIndex",
    "__version__",
    "check_leakage",
    "compare",
    "evaluate",
    "rated_clicks",
    "read_embedded",
    "read_interactions",
    "resume",
    "sampled_clicks",
    "split",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
