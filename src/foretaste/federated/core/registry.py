"""Finding a federated method by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretaste.registry import Registry

if TYPE_CHECKING:
    from foretaste.federated.core.base import FederatedMethod

METHODS: Registry[FederatedMethod] = Registry(
    "foretaste.federated",
    "federated method",
    others=("explaining", "gathering", "plan", "running"),
)
register, names, find_method = METHODS.register, METHODS.names, METHODS.find
