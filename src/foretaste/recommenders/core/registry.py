"""Finding a recommender by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretaste.registry import Registry

if TYPE_CHECKING:
    from foretaste.recommenders.core.base import Recommender

RECOMMENDERS: Registry[Recommender] = Registry("foretaste.recommenders", "recommender")
register, names, find = RECOMMENDERS.register, RECOMMENDERS.names, RECOMMENDERS.find
