"""What leaves a device, what comes to it, what stays: said from the list that is checked."""

from __future__ import annotations

from typing import Any, NamedTuple

from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Declared
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.messages import Kind
from foretaste.federated.core.travelling import EXCHANGES, coming_down, going_up
from foretaste.federated.lumos import LUMOSConfig
from foretaste.federated.rqfedrec import RQFedRecConfig
from foretaste.language.views.chat import ChatConfig
from foretaste.language.views.chat_endpoint import ChatEndpointConfig


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
    kinds: list[Kind] = list(EXCHANGES) if config.secure.on else ["train"]
    if config.client_evaluation:
        kinds.append("evaluate")
    up = tuple(dict.fromkeys(one for kind in kinds for one in going_up(method, kind)))
    down = tuple(dict.fromkeys(one for kind in kinds for one in coming_down(method, kind)))
    sentences = [
        *_of_prompts(config),
        "Histories, item ids and user ids never go to the server. What goes there is the list "
        "above and nothing else: a message with anything more, or of another type or shape, is "
        "refused.",
        _of_sums(method),
        _of_noise(method),
        *_of_method(method.config),
    ]
    if config.robust.rule != "mean":
        sentences.append(
            f"The {config.robust.rule} needs to see the update of every node, so it cannot be "
            "combined with secure aggregation."
        )
    return Privacy(up, down, method.personal(), tuple(sentences))


def _of_method(config: FederatedConfig) -> list[str]:
    """What the arrays of a method tell besides."""
    if isinstance(config, LUMOSConfig):
        return _of_views(config)
    if isinstance(config, RQFedRecConfig):
        return [
            "Codes and sketch are made so that the server can tell single items apart: it tells "
            "those of one user from one message of a node that has this user alone. Few bytes are "
            "no privacy; many users on a node, secure aggregation, or noise are."
        ]
    return []


def _of_views(config: LUMOSConfig) -> list[str]:
    told = ["Views of a history are made and kept where the history is; no message holds one."]
    if config.view_items == "trained":
        told.append(
            "But federated.view_items = trained moves vectors of items that only a view holds, so "
            "the rows that change in the update of one user tell of its views too. fixed does not."
        )
    return told


def _of_prompts(config: FederatedConfig) -> list[str]:
    """What leaves the device for somebody else than the server."""
    views = config.views if isinstance(config, LUMOSConfig) else None
    model = views.model if isinstance(views, ChatConfig) else None
    if not isinstance(model, ChatEndpointConfig) or not model.elsewhere:
        return ["Nothing leaves a device for anybody else than the server."]
    return [
        f"PROMPTS WITH TITLES OF THE HISTORY LEAVE THE DEVICE for {model.url} "
        "(federated.views.model.elsewhere = true). The list above is of the server alone."
    ]


def _of_sums(method: FederatedMethod) -> str:
    config = method.config
    if not config.secure.on:
        return (
            "A node of many users sends sums over them and counts; a node of one user sends that "
            "user's own sums, so its server sees the update of one person. So it does when one "
            "user alone takes part in a round; federated.min_users lets a node sit such rounds out."
        )
    evaluation = (
        " Sums of evaluation at the clients are not masked." if config.client_evaluation else ""
    )
    return (
        "Sums and counts of a node are masked (secure aggregation): a server that keeps to the "
        f"protocol learns only those of a group of up to {config.secure.group} nodes, and never "
        "of fewer than three. It still learns the group's sum, how many users were in it, and "
        f"which nodes answered.{evaluation} Lists above that name a group are as long as the "
        "group; the longest is shown."
    )


def _of_noise(method: FederatedMethod) -> str:
    privacy = method.config.privacy
    secure = method.config.secure.on
    what = "the sum of a group of few users" if secure else "the update of one user"
    if not privacy.clip:
        return (
            f"No clipping and no noise: from {what}, a curious server can tell "
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
