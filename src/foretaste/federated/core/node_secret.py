"""What only a node knows, and what it draws its noise and its coins from."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core.boundary import Refused
from foretaste.storage import write_whole

FILE = "secret.json"
OWNER_ONLY = 0o600


class NodeSecret:
    """A number of 128 bits, and the orders that were answered with noise.

    With a folder both lie in a file that only its owner can read: a node that is begun anew draws
    the same noise for the same order, so that asking again averages nothing out.
    """

    def __init__(self, folder: Path | None, number: int | None = None) -> None:
        """The one in ``folder``; a fresh one where there is none, or ``number``."""
        self._path = None if folder is None else folder / FILE
        self.answered: dict[str, str] = {}
        if self._path is not None and self._path.exists():
            number, self.answered = self._read(self._path)
        self.number = secrets.randbits(128) if number is None else number

    def once(
        self, round: int, rounds: int, received: Mapping[str, np.ndarray], place: str
    ) -> tuple[int, ...]:
        """Numbers to draw the noise of a reply from: others for every order, round or secret.

        Args:
            round: of the order.
            rounds: that epsilon is reckoned for.
            received: what came down.
            place: for messages.

        Raises:
            Refused: when this round was answered about something else, or comes after the last:
                the noise of two replies would hide less than epsilon says.
        """
        if not 1 <= round <= rounds:
            raise Refused(f"{place}: epsilon is reckoned for {rounds} rounds, so none came back.")
        digest = hashlib.blake2b(digest_size=16)
        for name, array in sorted(received.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        found = digest.hexdigest()
        if self.answered.setdefault(str(round), found) != found:
            raise Refused(
                f"{place}: this round was answered already, about another model, and its noise "
                "hides one answer only. Go on with the next round."
            )
        self.keep()
        return (self.number, round, int(found, 16))

    def keep(self) -> None:
        """Write the file, where there is a folder."""
        if self._path is not None:
            about = {"secret": self.number, "answered": self.answered}
            write_whole(self._path, json.dumps(about).encode(), mode=OWNER_ONLY)

    def _read(self, path: Path) -> tuple[int, dict[str, str]]:
        try:
            about = json.loads(path.read_bytes())
            return int(about["secret"]), dict(about["answered"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: damaged. Without it the node would draw other noise for rounds that it "
                "has answered; begin a new federation with another folder."
            ) from error
