"""What leaves a device, what comes to it, what stays: said from the list that is checked."""

from __future__ import annotations

from typing import Any, NamedTuple

from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Declared
from foretaste.federated.core.node import going_up


class Privacy(NamedTuple):
    """The lists of a method, and sentences about what they mean.

    Attributes:
        up: all that leaves a device.
        down: all that comes to it.
        personal: all that is kept on it.
        sentences: for people.
    """

    up: tuple[Declared, ...]
    down: tuple[Declared, ...]
    personal: tuple[Declared, ...]
    sentences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        lists = {"up": self.up, "down": self.down, "personal": self.personal}
        tables = {name: [one._asdict() for one in of] for name, of in lists.items()}
        return {**tables, "sentences": list(self.sentences)}


def explain(method: FederatedMethod) -> Privacy:
    """The lists that the boundary checks at run time, with what to think of them."""
    config = method.config
    up = going_up(method, "train")
    if config.client_evaluation:
        up += going_up(method, "evaluate")
    sentences = [
        "Histories, item ids and user ids never leave a device. What leaves is the list above and "
        "nothing else: a message with anything more, or with another type or shape, is refused.",
        "A node of many users sends sums over them and counts; a node of one user sends that "
        "user's own sums, so its server sees the update of one person. So it does when one user "
        "alone takes part in a round; federated.min_users lets a node sit such rounds out.",
        _of_noise(method),
    ]
    if config.robust.rule != "mean":
        sentences.append(
            f"The {config.robust.rule} needs to see the update of every node, so it cannot be "
            "combined with secure aggregation."
        )
    return Privacy(up, method.down(), method.personal(), tuple(sentences))


def _of_noise(method: FederatedMethod) -> str:
    privacy = method.config.privacy
    if not privacy.clip:
        return (
            "No clipping and no noise: from the update of one user, a curious server can tell "
            "which items are likely in its history. Set federated.privacy.clip and "
            "federated.privacy.noise."
        )
    if not privacy.noise:
        return (
            f"Updates are clipped to norm {privacy.clip:g}, which bounds what one user can do to "
            "the model; without noise it hides nothing. Set federated.privacy.noise."
        )
    who = (
        "the server, after adding up" if privacy.where == "server" else "each user, before sending"
    )
    return (
        f"Updates are clipped to norm {privacy.clip:g}; noise of {privacy.noise:g} times that is "
        f"added by {who}. The epsilon that rounds come to is in the report."
    )
