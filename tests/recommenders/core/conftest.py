"""A click task with a rule, and rankers that have learnt it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from foretaste.data.clicks import ClickTask
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.ranker import Ranker

from . import rankers
from .rankers import made


@pytest.fixture(scope="session")
def same_group() -> ClickTask:
    """See ``rankers.same_group``."""
    return rankers.same_group()


@pytest.fixture(scope="session")
def fitted(same_group: ClickTask) -> Callable[..., Ranker]:
    """Rankers that have learnt ``same_group``, each once."""
    models: dict[str, Ranker] = {}

    def get(name: str, **parameters: Any) -> Ranker:
        key = f"{name} {parameters}"
        if key not in models:
            models[key] = made(name, **parameters)
            models[key].fit_clicks(same_group, RunContext(seed=1))
        return models[key]

    return get
