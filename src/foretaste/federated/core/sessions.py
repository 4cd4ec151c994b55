"""A node's side of secure aggregation: the secrets of one session, and its four answers.

A session is one attempt of one round. It gives every answer once and in order, its secrets are gone
with the last, and a newer session takes the place of one that was not ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core import secure
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Arrays, check
from foretaste.federated.core.messages import Kind, Order
from foretaste.federated.core.travelling import (
    DELIVERED,
    EXCHANGES,
    KEY_BYTES,
    KEY_SHARES,
    MASK_KEYS,
    PLACE,
    SEALED,
    SEALED_BYTES,
    SECRET_BYTES,
    SECURE,
    SELF_SHARES,
    SESSION,
    SHARE_KEYS,
    THERE,
    secure_down,
    sums_of,
)
from foretaste.storage import read_arrays_about, write_arrays

FILE = "session.safetensors"


@dataclass(frozen=True, repr=False)  # secrets are not for logs
class Session:
    """What a node knows of a session.

    Attributes:
        id: 16 random bytes of the server's.
        round: that it is an attempt of.
        asked: the last order that was answered.
        key_seed: 16 bytes, the mask key pair comes from them.
        self_seed: 16 bytes, the node's own mask comes from them.
        share_key: 32 bytes, private, to seal and unseal shares with.
        place: of the node in its group; -1 before it is known.
        mask_keys: public keys of the group, uint8 ``[nodes, 32]``.
        share_keys: likewise.
        there: who of the group goes on, bool ``[nodes]``.
        shares: what this node keeps for the group, uint8 ``[nodes, 32]``: of each node's key seed,
            then of its self seed.
    """

    id: bytes
    round: int
    asked: Kind
    key_seed: bytes
    self_seed: bytes
    share_key: bytes
    place: int
    mask_keys: np.ndarray
    share_keys: np.ndarray
    there: np.ndarray
    shares: np.ndarray

    @classmethod
    def begin(cls, id: bytes, round: int) -> Session:
        """With new secrets."""
        none = np.zeros((0, KEY_BYTES), np.uint8)
        return cls(
            id,
            round,
            asked="train.keys",
            key_seed=secrets.token_bytes(SECRET_BYTES),
            self_seed=secrets.token_bytes(SECRET_BYTES),
            share_key=secrets.token_bytes(KEY_BYTES),
            place=-1,
            mask_keys=none,
            share_keys=none,
            there=np.zeros(0, bool),
            shares=np.zeros((0, 2 * SECRET_BYTES), np.uint8),
        )

    @property
    def nodes(self) -> int:
        """Of the group."""
        return len(self.mask_keys)

    @property
    def public_keys(self) -> Arrays:
        """Of this node, as they travel."""
        private = secure.mask_key(self.key_seed, self.id)
        found = {MASK_KEYS: private, SHARE_KEYS: self.share_key}
        return {name: _rows(secure.public_of(key), 1) for name, key in found.items()}


class NodeSessions:
    """Answers the orders of secure rounds for one node; it keeps one session.

    Messages of a node may come to different processes, so with a folder the session lies there, in
    a file that only its owner may read.
    """

    def __init__(self, method: FederatedMethod, folder: Path | None) -> None:
        """Without a folder the session stays in memory."""
        self.method, self.folder = method, folder
        self.config = method.config.secure
        self._memory: Session | None = None

    def answer(
        self, order: Order, train: Callable[[Order], Arrays], place: str
    ) -> tuple[Arrays, int]:
        """What is sent in answer to an order, and the nodes of the group (0 before it is known).

        Args:
            order: of any kind of ``EXCHANGES``.
            train: gives the sums of this node; it gets the order as it is without this.
            place: for messages.

        Raises:
            InputError: when the order is not of this session or not the next one, when shares were
                changed on their way, when too few nodes are left, or when a sum is out of range.
        """
        secure.require_ciphers()
        if order.kind == "train.keys":
            check(order.arrays, secure_down(order.kind, 0), place)
            session = Session.begin(order.arrays[SESSION].tobytes(), order.round)
            self._write(session)
            return {SESSION: order.arrays[SESSION], **session.public_keys}, 0
        session = self._next(order, place)
        if order.kind == "train.shares":
            session, arrays = self._share(session, order, place)
        elif order.kind == "train":
            session, arrays = self._masked(session, order, train, place)
        else:
            arrays = self._unmask(session, order, place)
        ended = order.kind == "train.unmask"
        self._write(None if ended else replace(session, asked=order.kind))
        return {SESSION: order.arrays[SESSION], **arrays}, session.nodes

    def _next(self, order: Order, place: str) -> Session:
        """The session that an order is of, whose next order it must be."""
        named = order.arrays.get(SESSION)
        if named is None:
            check({}, secure_down("train.keys", 0), place)
            raise AssertionError
        session = self._read()
        if session is None or (session.id, session.round) != (named.tobytes(), order.round):
            raise InputError(
                f"{place}: session {named.tobytes().hex()[:8]} is not known here, so nothing was "
                "sent: it has ended, a newer one has begun, or the node keeps no files between "
                "messages. Give it a folder (state), and ask again in a new session."
            )
        if EXCHANGES.index(session.asked) + 1 != EXCHANGES.index(order.kind):
            raise InputError(
                f"{place}: {order.kind} after {session.asked}: a session gives every answer once "
                "and in order, so nothing was sent. Ask again in a new session."
            )
        return session

    def _share(self, session: Session, order: Order, place: str) -> tuple[Session, Arrays]:
        """Split both secrets, and seal a share of each for every other node."""
        nodes = len(order.arrays.get(MASK_KEYS, ()))
        check(order.arrays, secure_down("train.shares", nodes), place)
        needed, own = self._enough(nodes, nodes, place), int(order.arrays[PLACE])
        session = replace(
            session,
            place=own,
            mask_keys=order.arrays[MASK_KEYS],
            share_keys=order.arrays[SHARE_KEYS],
            there=np.ones(nodes, bool),
        )
        for name, mine in session.public_keys.items():
            keys = order.arrays[name]
            if not 0 <= own < nodes or not np.array_equal(keys[own], mine[0]):
                raise InputError(
                    f"{place}: row {own} of {name} is not the key that this node gave, so nothing "
                    "was sent. Ask again in a new session."
                )
            if len(np.unique(keys, axis=0)) < nodes:
                raise InputError(f"{place}: two nodes have one key in {name}; nothing was sent.")
        of_key = secure.split_secret(session.key_seed, needed, nodes)
        of_self = secure.split_secret(session.self_seed, needed, nodes)
        sealed = np.zeros((nodes, SEALED_BYTES), np.uint8)
        for peer in range(nodes):
            if peer != own:
                content = secure.seal(
                    self._between(session, peer),
                    of_key[peer] + of_self[peer],
                    _about(session, own, peer),
                )
                sealed[peer] = _rows(content, 1)[0]
        shares = np.zeros((nodes, 2 * SECRET_BYTES), np.uint8)
        shares[own] = _rows(of_key[own] + of_self[own], 1)[0]
        return replace(session, shares=shares), {SEALED: sealed}

    def _masked(
        self, session: Session, order: Order, train: Callable[[Order], Arrays], place: str
    ) -> tuple[Session, Arrays]:
        """Open the shares that came, train, and mask the sums."""
        added = {name: one for name, one in order.arrays.items() if name.startswith(SECURE)}
        own = {name: one for name, one in order.arrays.items() if name not in added}
        check(added, secure_down("train", session.nodes), place)
        there, shares = added[THERE], session.shares.copy()
        self._enough(int(there.sum()), session.nodes, place)
        self._among(session, there, session.there, place)
        for peer in np.flatnonzero(there).tolist():
            if peer == session.place:
                continue
            key, about = self._between(session, peer), _about(session, peer, session.place)
            opened = secure.unseal(key, added[SEALED][peer].tobytes(), about)
            if opened is None:
                raise InputError(
                    f"{place}: the shares of node {peer} of the group were changed on their way, "
                    "or are meant for another node, round or session, so nothing was sent. The "
                    "round goes on without this node."
                )
            shares[peer] = _rows(opened, 1)[0]
        sums, declared = train(order._replace(arrays=own)), sums_of(self.method)
        check(sums, declared, place)
        words = secure.to_words(sums, declared, session.nodes, self.config.range, place)
        secure.mask(words, secure.self_mask(session.self_seed, session.id), 1)
        private = secure.mask_key(session.key_seed, session.id)
        for peer in np.flatnonzero(there).tolist():
            if peer != session.place:
                key = secure.pair_mask(private, session.mask_keys[peer].tobytes(), session.id)
                secure.mask(words, key, 1 if session.place < peer else -1)
        return replace(session, there=there, shares=shares), words

    def _unmask(self, session: Session, order: Order, place: str) -> Arrays:
        """A share of the self seed of nodes that sent sums, of the key seed of the others.

        One answer names each node once, and there is no second: whoever has both shares of enough
        nodes could read the sums of one.
        """
        check(order.arrays, secure_down("train.unmask", session.nodes), place)
        delivered = order.arrays[DELIVERED]
        self._enough(int(delivered.sum()), session.nodes, place)
        self._among(session, delivered, session.there, place)
        dropped = session.there & ~delivered
        of_key, of_self = np.split(session.shares, 2, axis=1)
        return {
            SELF_SHARES: np.where(delivered[:, None], of_self, np.uint8(0)),
            KEY_SHARES: np.where(dropped[:, None], of_key, np.uint8(0)),
        }

    def _enough(self, left: int, nodes: int, place: str) -> int:
        """How many nodes must be there at the end; fewer than that are refused at once."""
        needed, most = self.config.needed(nodes), self.config.group
        if nodes > most:
            raise InputError(
                f"{place}: a group of {nodes} nodes, but federated.secure.group is {most}. Server "
                "and node must have the same recipe."
            )
        if left < needed:
            raise InputError(
                f"{place}: {left} of {nodes} nodes of the group are left, {needed} are needed to "
                "hide one among them, so nothing was sent. Ask again, or lower "
                "federated.secure.threshold."
            )
        return needed

    def _among(self, session: Session, named: np.ndarray, of: np.ndarray, place: str) -> None:
        if (named & ~of).any() or not named[session.place]:
            raise InputError(
                f"{place}: the order leaves this node out of its group, or names nodes that had "
                "left it, so nothing was sent. Ask again in a new session."
            )

    def _between(self, session: Session, peer: int) -> bytes:
        """The key of shares between this node and another."""
        secret = secure.agreed(session.share_key, session.share_keys[peer].tobytes())
        return secure.derived(secret, session.id, "shares")

    def _read(self) -> Session | None:
        if self.folder is None:
            return self._memory
        path = self.folder / FILE
        if not path.exists():
            return None
        arrays, about = read_arrays_about(path, again="Delete it; a new session will begin.")
        hidden = {name: arrays.pop(name).tobytes() for name in ("id", *_SECRETS)}
        return Session(**hidden, **arrays, **about)  # type: ignore[arg-type]

    def _write(self, session: Session | None) -> None:
        if self.folder is None:
            self._memory = session
            return
        path = self.folder / FILE
        if session is None:
            path.unlink(missing_ok=True)
            return
        values = dict(vars(session))
        about = {name: values.pop(name) for name in ("round", "asked", "place")}
        for name in ("id", *_SECRETS):
            values[name] = np.frombuffer(values[name], np.uint8)
        write_arrays(path, values, about, secret=True)


_SECRETS = ("key_seed", "self_seed", "share_key")


def _about(session: Session, sender: int, receiver: int) -> bytes:
    """What sealed shares are bound to."""
    return f"{session.id.hex()} round {session.round} from {sender} to {receiver}".encode()


def _rows(content: bytes, rows: int) -> np.ndarray:
    """Bytes as uint8 ``[rows, bytes / rows]``."""
    return np.frombuffer(content, np.uint8).reshape(rows, -1)
