"""Numbers under masks: the arithmetic and the ciphers of secure aggregation.

Bonawitz et al., CCS 2017. Every pair of nodes agrees on a mask that one adds and the other
subtracts, so pairs cancel in a sum; every node adds a mask of its own besides. Shamir shares of the
secrets behind both lie with the group, so that the sum can be unmasked when nodes drop out.

Sums travel in fixed point, as whole numbers modulo 2^32: a step is ``range / ((2^31 - 1) //
nodes)``, within a millionth of ``nodes * range / 2^31``, so that the sum of a whole group cannot
wrap around. Each node's values are rounded to the nearest step. Counts and losses are whole numbers
modulo 2^64, integers as they are and others in steps of 2^-20.

Ciphers are those of ``cryptography`` and ``pycryptodome``; keys, seeds and masks are of bytes, and
a key has one purpose in one session.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from foretaste.errors import InputError, MissingExtraError
from foretaste.federated.core.boundary import Arrays, Declared
from foretaste.federated.core.travelling import KEY_BYTES

LARGEST = 2**32
"""Of a node's counts and losses; with it they cannot wrap around in a group of 1,024."""
COUNT_STEP = 2.0**-20
_NONCE = 12


def require_ciphers() -> None:
    """Raises ``MissingExtraError`` when what the masks are made with is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("cryptography", "federated") from error
    try:
        import Crypto  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pycryptodome", "federated") from error


# Fixed point.


def step_of(nodes: int, largest: float) -> float:
    """The step in which a group of so many nodes counts sums up to ``largest`` each."""
    return largest / ((2**31 - 1) // nodes)


def to_words(
    arrays: Mapping[str, np.ndarray],
    declared: Sequence[Declared],
    nodes: int,
    largest: float,
    place: str,
) -> Arrays:
    """Sums as unsigned whole numbers, as ``travelling.masked`` declares them.

    Args:
        arrays: finite sums, as ``declared``.
        declared: as they are before.
        nodes: of the group.
        largest: absolute value that sums may have.
        place: for messages.

    Raises:
        InputError: a value is larger, which names the array and the value.
    """
    found = {}
    for one in declared:
        array = np.asarray(arrays[one.name], np.float64 if one.dtype != "int64" else None)
        sums = one.dtype == "float32"
        limit = largest if sums else float(LARGEST)
        if array.size and (worst := float(np.abs(array).max())) > limit:
            raise InputError(f"{place}: {_too_large(one.name, worst, limit, sums)}")
        if one.dtype != "int64":
            array = np.rint(array / (step_of(nodes, largest) if sums else COUNT_STEP))
        word = np.uint32 if sums else np.uint64
        found[one.name] = array.astype(np.int64).astype(word).reshape(one.shape or (1,))
    return found


def from_words(
    totals: Mapping[str, np.ndarray],
    declared: Sequence[Declared],
    nodes: int,
    largest: float,
    place: str,
) -> Arrays:
    """The sums of a group from the sum of its nodes' words, as ``declared``.

    Raises:
        InputError: when a count is beyond all bounds, which it is when masks are left on it.
    """
    found = {}
    for one in declared:
        words = totals[one.name]
        if one.dtype == "float32":
            array = words.view(np.int32) * step_of(nodes, largest)
        else:
            array = words.view(np.int64)
            if one.dtype != "int64":
                array = array * COUNT_STEP
            if (np.abs(array.astype(np.float64)) > nodes * float(LARGEST)).any():
                raise InputError(
                    f"{place}: a sum is not one, so masks were left on it: a node gave shares or "
                    "keys that are not those of the session. Ask again in a new session."
                )
        found[one.name] = array.astype(one.dtype).reshape(one.shape)
    return found


def _too_large(name: str, value: float, limit: float, sums: bool) -> str:
    if not sums:
        return f'"{name}" is {value:g}; masked counts go up to {limit:g}. Use more nodes.'
    return (
        f'"{name}" holds {value:g}, more than federated.secure.range = {limit:g}, so nothing was '
        "sent. Raise federated.secure.range, or clip updates with federated.privacy.clip."
    )


# Masks.


def mask(words: Arrays, key: bytes, sign: int) -> None:
    """Add (``sign`` 1) or subtract (-1) the mask of a key to all words, in place.

    The mask is ChaCha20's key stream, cut along the arrays in the order of their names. The key
    must be of this one mask, since the nonce is zero.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    for _, array in sorted(words.items()):
        content = stream.update(bytes(array.nbytes))
        drawn = np.frombuffer(content, array.dtype.newbyteorder("<")).reshape(array.shape)
        if sign > 0:
            array += drawn
        else:
            array -= drawn


# Keys.


def derived(secret: bytes, session: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose in one session (HKDF with SHA-256)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = f"foretaste secure aggregation, {purpose}".encode()
    return HKDF(SHA256(), KEY_BYTES, session, info).derive(secret)


def mask_key(seed: bytes, session: bytes) -> bytes:
    """The private key of a node's pairs of masks, from the seed that is shared."""
    return derived(seed, session, "mask key")


def self_mask(seed: bytes, session: bytes) -> bytes:
    """The key of a node's own mask, from the seed that is shared."""
    return derived(seed, session, "self mask")


def pair_mask(private: bytes, public: bytes, session: bytes) -> bytes:
    """The key of the mask of two nodes, the same from either side."""
    return derived(agreed(private, public), session, "pair mask")


def public_of(private: bytes) -> bytes:
    """The X25519 public key of a private one."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(private: bytes, public: bytes) -> bytes:
    """What two nodes know and nobody else (X25519).

    Raises:
        InputError: when the public key is none.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    try:
        other = X25519PublicKey.from_public_bytes(public)
        return X25519PrivateKey.from_private_bytes(private).exchange(other)
    except ValueError as error:
        raise InputError(
            f"{public.hex()[:16]}... is no public key that a secret can be agreed on with. The "
            "round goes on without its node."
        ) from error


# Shares.


def split_secret(secret: bytes, needed: int, nodes: int) -> list[bytes]:
    """Shamir shares of 16 bytes for the places of a group; ``needed`` of them give it back."""
    from Crypto.Protocol.SecretSharing import Shamir

    return [bytes(share) for _, share in Shamir.split(needed, nodes, secret, False)]


def joined_secret(shares: Mapping[int, bytes], needed: int) -> bytes:
    """The secret from shares by place; ``needed`` of them are taken."""
    from Crypto.Protocol.SecretSharing import Shamir

    chosen = sorted(shares.items())[:needed]
    return bytes(Shamir.combine([(place + 1, share) for place, share in chosen], False))


def seal(key: bytes, content: bytes, about: bytes) -> bytes:
    """Content that only who has the key can read and nobody can change, bound to ``about``."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    nonce = os.urandom(_NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, content, about)


def unseal(key: bytes, sealed: bytes, about: bytes) -> bytes | None:
    """What ``seal`` was given; None when key, content or ``about`` are not as they were."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
    except InvalidTag:
        return None
