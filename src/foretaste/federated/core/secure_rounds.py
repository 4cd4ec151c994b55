"""The server's side of secure aggregation: sums of groups of nodes, and no node's own.

An attempt of a round is four exchanges: public keys, sealed shares, masked sums, and shares to
unmask them. Nodes that fail in the first two are left out; the masks of those that fail in the
third are taken off by shares; in the fourth a group needs as many as ``secure.threshold`` says. A
group with fewer is lost, and its nodes may be asked again. A node whose group was opened is not
asked again in its round, since the difference of two sums would tell what it sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core import secure
from foretaste.federated.core.asking import Asking
from foretaste.federated.core.boundary import Arrays, Declared, check
from foretaste.federated.core.fleet import Delivery
from foretaste.federated.core.messages import PROTOCOL, Kind, Order, Reply
from foretaste.federated.core.plausible import check_counts
from foretaste.federated.core.travelling import (
    DELIVERED,
    KEY_SHARES,
    MASK_KEYS,
    PLACE,
    SEALED,
    SEALED_BYTES,
    SELF_SHARES,
    SESSION,
    SESSION_BYTES,
    SHARE_KEYS,
    THERE,
    going_up,
    secure_down,
    sums_of,
)

FEWEST = 3
"""Nodes of a group: the sum of two would tell each of them what the other sent."""


class Collected(NamedTuple):
    """What an attempt of a round brought.

    Attributes:
        deliveries: of every node that was asked; bytes are those of all its exchanges.
        sums: of groups, by the name of the first node in them; plain numbers again.
    """

    deliveries: list[Delivery]
    sums: dict[str, Reply]


@dataclass
class Group:
    """Nodes that mask for each other in one session, by their places.

    Attributes:
        names: of the nodes.
        mask_keys: public, uint8 ``[nodes, 32]``.
        share_keys: likewise.
        sealed: shares, uint8 ``[sender, receiver, 60]``.
        there: who goes on after the shares, bool ``[nodes]``.
        delivered: who sent masked sums, bool ``[nodes]``.
        total: of the masked sums, modulo 2^32 and 2^64.
    """

    names: list[str]
    mask_keys: np.ndarray
    share_keys: np.ndarray
    sealed: np.ndarray = field(init=False)
    there: np.ndarray = field(init=False)
    delivered: np.ndarray = field(init=False)
    total: Arrays = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nobody has sent anything yet."""
        nodes = len(self.names)
        self.sealed = np.zeros((nodes, nodes, SEALED_BYTES), np.uint8)
        self.there, self.delivered = np.zeros(nodes, bool), np.zeros(nodes, bool)

    def those(self, which: np.ndarray) -> dict[str, int]:
        """Places by name of the nodes that ``which`` holds of, bool ``[nodes]``."""
        return {self.names[place]: place for place in np.flatnonzero(which).tolist()}


class SecureRounds:
    """Collects the sums of a round under masks."""

    def __init__(self, asking: Asking) -> None:
        """Raises ``MissingExtraError`` without the ciphers."""
        secure.require_ciphers()
        self.asking, self.method = asking, asking.method
        self.config = self.method.config.secure
        self.largest = self.config.group

    def collect(self, number: int, nodes: Sequence[str], state: Arrays) -> Collected:
        """One attempt of a round over these nodes."""
        attempt = _Attempt(self.asking, number, nodes)
        groups = self._groups(attempt, nodes)
        self.largest = max((len(one.names) for one in groups), default=self.largest)
        groups = self._shares(attempt, groups)
        groups = self._train(attempt, groups, state)
        sums = self._open(attempt, groups)
        return Collected(list(attempt.deliveries.values()), sums)

    def added(self) -> tuple[Arrays, list[Order]]:
        """What a node of the largest group of the last attempt got, besides the method's arrays.

        Of those sizes and zero: what its order to train had besides, and its other orders.
        """

        def zeros(kind: Kind) -> Arrays:
            lists = secure_down(kind, self.largest)
            return {one.name: np.zeros(one.shape, one.dtype) for one in lists}

        kinds: tuple[Kind, ...] = ("train.keys", "train.shares", "train.unmask")
        others = [
            Order(kind, 1, PROTOCOL, self.method.config.clients, zeros(kind)) for kind in kinds
        ]
        return zeros("train"), others

    def _groups(self, attempt: _Attempt, nodes: Sequence[str]) -> list[Group]:
        """Keys of all nodes; those that gave some are dealt into groups in turn."""
        if len(nodes) < FEWEST:
            attempt.leave_out(nodes, f"{len(nodes)} nodes are left, {FEWEST} are needed")
            return []
        found = attempt.ask("train.keys", {node: {} for node in nodes})
        names = sorted(found)
        if len(names) < FEWEST:
            attempt.leave_out(names, f"{len(names)} nodes gave keys, {FEWEST} are needed")
            return []
        count = -(-len(names) // self.config.group)
        groups = []
        for first in range(count):
            mine = names[first::count]
            mask_keys, share_keys = (
                np.concatenate([found[one][key] for one in mine]) for key in (MASK_KEYS, SHARE_KEYS)
            )
            groups.append(Group(mine, mask_keys, share_keys))
        return groups

    def _shares(self, attempt: _Attempt, groups: list[Group]) -> list[Group]:
        """Nodes seal shares for each other."""
        arrays = {
            name: {
                PLACE: np.array(place, np.int64),
                MASK_KEYS: group.mask_keys,
                SHARE_KEYS: group.share_keys,
            }
            for group in groups
            for place, name in enumerate(group.names)
        }
        found = attempt.ask("train.shares", arrays, _sizes(groups))
        for group in groups:
            for place, name in enumerate(group.names):
                if name in found:
                    group.there[place] = True
                    group.sealed[place] = found[name][SEALED]
        return self._enough(attempt, groups, lambda group: group.there, "gave shares")

    def _train(self, attempt: _Attempt, groups: list[Group], state: Arrays) -> list[Group]:
        """Nodes train, and send masked sums."""
        arrays = {
            name: {THERE: group.there, SEALED: group.sealed[:, place]}
            for group in groups
            for name, place in group.those(group.there).items()
        }
        orders = self.asking.orders("train", attempt.number, list(arrays), state)
        found = attempt.ask("train", arrays, _sizes(groups), orders)
        for group in groups:
            for name, place in group.those(group.there).items():
                if name not in found:
                    continue
                group.delivered[place] = True
                for one in sums_of(self.method):
                    words = found[name][one.name]
                    before = group.total.get(one.name)
                    group.total[one.name] = words.copy() if before is None else before + words
        return self._enough(attempt, groups, lambda group: group.delivered, "sent sums")

    def _open(self, attempt: _Attempt, groups: list[Group]) -> dict[str, Reply]:
        """Take the masks off the sum of each group."""
        arrays = {
            name: {DELIVERED: group.delivered}
            for group in groups
            for name in group.those(group.delivered)
        }
        found = attempt.ask("train.unmask", arrays, _sizes(groups))
        sums = {}
        for group in groups:
            delivered = group.those(group.delivered)
            shares = {place: found[name] for name, place in delivered.items() if name in found}
            needed, nodes = self.config.needed(len(group.names)), len(group.names)
            if len(shares) < needed:
                why = f"{len(shares)} of {nodes} nodes gave shares to unmask, {needed} are needed"
                attempt.leave_out(delivered, why + attempt.cause(group.names))
                continue
            place = f"{group.names[0]} and its group, round {attempt.number}"
            declared = sums_of(self.method)
            try:
                self._unmask(group, attempt.session, shares, place)
                plain = secure.from_words(group.total, declared, nodes, self.config.range, place)
                check(plain, declared, place)
                reply = Reply("train", attempt.number, PROTOCOL, plain)
                check_counts(self.method, reply, self.asking.most(len(delivered)), place)
            except InputError as error:
                attempt.leave_out(delivered, str(error))
                continue
            first = next(iter(delivered))  # of no other group, whatever is asked again
            sums[first] = reply
            attempt.opened(delivered)
        return sums

    def _unmask(
        self, group: Group, session: bytes, shares: Mapping[int, Arrays], place: str
    ) -> None:
        """Subtract own masks of those who delivered, and masks of pairs with those who did not."""

        def secret(kind: str, of: int) -> bytes:
            found = {holder: one[kind][of].tobytes() for holder, one in shares.items()}
            return secure.joined_secret(found, self.config.needed(len(group.names)))

        delivered = group.those(group.delivered)
        for one in delivered.values():
            secure.mask(group.total, secure.self_mask(secret(SELF_SHARES, one), session), -1)
        for name, gone in group.those(group.there & ~group.delivered).items():
            private = secure.mask_key(secret(KEY_SHARES, gone), session)
            if secure.public_of(private) != group.mask_keys[gone].tobytes():
                raise InputError(
                    f"{place}: the shares of {name}, which dropped out, do not give the key that "
                    "it had. Ask again in a new session."
                )
            for one in delivered.values():
                key = secure.pair_mask(private, group.mask_keys[one].tobytes(), session)
                secure.mask(group.total, key, -1 if one < gone else 1)

    def _enough(
        self,
        attempt: _Attempt,
        groups: list[Group],
        left: Callable[[Group], np.ndarray],
        what: str,
    ) -> list[Group]:
        """The groups that can go on; nodes of the others are told why not."""
        kept = []
        for group in groups:
            here, nodes = int(left(group).sum()), len(group.names)
            needed = self.config.needed(nodes)
            if here >= needed:
                kept.append(group)
            else:
                why = f"{here} of {nodes} nodes {what}, {needed} are needed"
                attempt.leave_out(group.those(left(group)), why + attempt.cause(group.names))
        return kept


class _Attempt:
    """The exchanges of one attempt: bytes and problems of every node are added up."""

    def __init__(self, asking: Asking, number: int, nodes: Sequence[str]) -> None:
        self.asking, self.number = asking, number
        self.session = secrets.token_bytes(SESSION_BYTES)
        self.deliveries = {node: Delivery(node, None) for node in nodes}

    def ask(
        self,
        kind: Kind,
        arrays: Mapping[str, Arrays],
        sizes: Mapping[str, int] | None = None,
        orders: Mapping[str, Order] | None = None,
    ) -> dict[str, Arrays]:
        """What nodes answered to an order with ``arrays`` besides, by the name of the node.

        Args:
            kind: of the order.
            arrays: for each node that is asked.
            sizes: nodes of each one's group.
            orders: that the arrays are added to; by default empty ones.
        """
        method, session = self.asking.method, np.frombuffer(self.session, np.uint8)
        empty = Order(kind, self.number, PROTOCOL, method.config.clients, {})
        lists: dict[int, tuple[Declared, ...]] = {}
        asked, declared = {}, {}
        for node, own in arrays.items():
            order = orders[node] if orders else empty
            asked[node] = order._replace(arrays={**order.arrays, SESSION: session, **own})
            size = sizes[node] if sizes else 0
            if size not in lists:
                lists[size] = going_up(method, kind, size)
            declared[node] = lists[size]
        found = {}
        for one in self.asking.ask(asked, declared) if asked else ():
            reply, problem = one.reply, one.problem
            if reply is not None and reply.arrays[SESSION].tobytes() != self.session:
                place = f"{one.node}, round {self.number}"
                reply, problem = None, f"{place}: a reply of another session came late."
            if reply is not None:
                found[one.node] = reply.arrays
            before = self.deliveries[one.node]
            down, up = before.down + one.down, before.up + one.up
            self.deliveries[one.node] = Delivery(one.node, None, problem, down, up)
        return found

    def leave_out(self, nodes: Sequence[str] | Mapping[str, int], why: str) -> None:
        """Say of nodes why they do not count, after those that failed themselves."""
        said = f"secure sum: {why.rstrip('.')}."
        for node in nodes:
            self.deliveries[node] = self.deliveries.pop(node)._replace(problem=said)

    def cause(self, nodes: Sequence[str]) -> str:
        """What the first of these nodes that failed said of it."""
        said = [self.deliveries[node].problem for node in nodes if self.deliveries[node].problem]
        return f". {said[0]}" if said else ""

    def opened(self, nodes: Mapping[str, int]) -> None:
        """These nodes count. What they sent is in the sum of their group, and not kept."""
        reply = Reply("train", self.number, PROTOCOL, {})
        for node in nodes:
            self.deliveries[node] = self.deliveries[node]._replace(reply=reply, problem="")


def _sizes(groups: Sequence[Group]) -> dict[str, int]:
    return {name: len(group.names) for group in groups for name in group.names}
