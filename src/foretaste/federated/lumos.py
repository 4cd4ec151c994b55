"""LUMOS: contrastive federated sequential recommendation with views made on the device.

arXiv 2602.09306. Every client makes three views of its history (``foretaste.language.views``): a
future, a rephrasing, a counterfactual. The network reads history and views; the history's vector
is drawn to the first two and away from the third, beside FedAvg's loss. What goes up is FedAvg's:
the same arrays, the same bytes.

No code of the authors is public; loss and temperature are those of a third-party note on the
paper. Decided here: FedAvg's part of the loss sees what it would see without views (its softmax is
over the same items), and by default the contrast does not move the vectors of items that only a
view holds, so that a curious server finds no more changed rows in an update than FedAvg's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from foretaste.data.sequences import Sequences, offsets_of
from foretaste.errors import InputError
from foretaste.federated.core.base import LocalUsers, Trained, World
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.local_items import local_items, local_windows
from foretaste.federated.core.local_training import Tensors
from foretaste.federated.core.randomness import hashed
from foretaste.federated.core.updates import Rows
from foretaste.federated.fedavg import TABLE, FedAvg
from foretaste.language.views.making import ViewBook, ViewsConfig, maker_for, require_maker
from foretaste.language.views.neighbours import TitlesConfig
from foretaste.language.views.store import ViewStore
from foretaste.language.views.views import KINDS, Request, Unfinished, Views, no_view
from foretaste.recommenders.core.sequence import Histories

logger = logging.getLogger(__name__)

_PLACE = 8_101
"""Keeps the draws of views apart from other draws of a user in a round."""
_ABSENT = -1e4
"""The logit of a view that is not there: no share of any sum, and no NaN in a gradient."""

Kind = Literal["future", "rephrasing", "counterfactual"]


class LUMOSConfig(FederatedConfig):
    """Of LUMOS.

    Attributes:
        contrast: weight of the contrastive loss; 0 is FedAvg.
        temperature: cosines are divided by it.
        denominators: ``shared``, as in the paper: both positives are in one sum, compete, and the
            loss is never below ``2 ln 2``. ``separate``: each positive against the counterfactual
            alone, down to 0.
        uses: which views; the others are not made use of.
        view_items: ``fixed``: the contrast moves the network and the vectors of the user's own
            items; ``trained``: those of the views' items too, as where one trains without a care
            for what rows of an update tell.
        views: who makes them; see ``ViewsConfig``.
        cache: file that views are kept in on the device; None keeps them beside the node's other
            files, or in memory.
    """

    contrast: float = Field(default=0.1, ge=0)
    temperature: float = Field(default=0.07, gt=0)
    denominators: Literal["shared", "separate"] = "shared"
    uses: tuple[Kind, ...] = ("future", "rephrasing", "counterfactual")
    view_items: Literal["fixed", "trained"] = "fixed"
    views: ViewsConfig = TitlesConfig()
    cache: Path | None = None

    @model_validator(mode="after")
    def _can_contrast(self) -> Self:
        if not {"future", "rephrasing"} & set(self.uses):
            raise ValueError("uses must name future or rephrasing: there is nothing to draw near")
        if self.denominators == "separate" and "counterfactual" not in self.uses:
            raise ValueError(
                "denominators = separate without the counterfactual is a loss of 0; name it in "
                "uses, or set denominators = shared"
            )
        return self


class _Made(NamedTuple):
    """What training of a group of users needs to know of their views.

    Attributes:
        three: views of each kind, ``C`` rows; empty rows where there is none.
        touched: items of histories and views, ``C`` rows.
        rows: items that FedAvg would train with, int64 ``[C, U]``, then -1.
        correction: FedAvg's, float32 ``[C, U]``.
    """

    three: tuple[Sequences, ...]
    touched: Sequences
    rows: np.ndarray
    correction: np.ndarray


class LUMOS(FedAvg):
    """FedAvg with the tri-view contrast."""

    name = "lumos"
    Config = LUMOSConfig

    def __init__(self, config: FederatedConfig, world: World) -> None:
        """No view is made, and no language model loaded, before the first user trains.

        Raises:
            InputError: when the model is none that FedAvg trains, or reads the time of events,
                which those of a view do not have; when views need titles and the catalog has
                none, or (where nodes are) a language model that is not here.
        """
        super().__init__(config, world)
        if getattr(self.network, "reads_time", False):
            raise InputError(
                f"lumos: {self.model.name} reads the time of events, and events of a view have "
                "none. Set model.use_times = false, or choose --model sasrec or gru4rec."
            )
        require_maker(self.config.views, world.catalog, here=world.folder is not None)
        self._book: ViewBook | None = None
        self.without_views = 0
        """Users whom a language model left without a view, once for each round; stays here."""
        self._told: set[str] = set()
        self._opening = threading.Lock()
        self._now = threading.local()

    def book(self) -> ViewBook:
        """The maker of views, with what it made before; opened when it is first asked for."""
        with self._opening:
            if self._book is None:
                folder, progress = self.world.folder, self.world.progress
                path = self.config.cache or (None if folder is None else folder / "views.sqlite")
                maker = maker_for(
                    self.config.views, self.world.catalog, folder=folder, progress=progress
                )
                self._book = ViewBook(maker, self.world.catalog, ViewStore(path))
            return self._book

    def views(self, received: Mapping[str, np.ndarray], users: LocalUsers) -> Views:
        """The views of users; made here, and they stay here.

        Where the language model fails, users train without views: counted, and told here once.
        """
        request = Request(users.histories, hashed(users.draws, _PLACE), np.asarray(received[TABLE]))
        try:
            found = self.book().views(request, self.world.progress)
        except Unfinished as error:
            without = Views([no_view()])
            rows = range(len(users))
            found = Views.joined([error.made.get(row, without) for row in rows])
            self._tell("unreachable", str(error), len(users) - len(error.made))
        if found.refused:
            self._tell("refused", "the language model refuses some prompts.", len(found.refused))
        return found

    def _tell(self, kind: str, why: str, users: int) -> None:
        with self._opening:
            self.without_views += users
            level = logging.INFO if kind in self._told else logging.WARNING
            self._told.add(kind)
        counts = {"why": why, "without_views": users}
        logger.log(level, "lumos: %(why)s %(without_views)d users train as in FedAvg.", counts)

    def train(
        self, received: Mapping[str, np.ndarray], users: LocalUsers, round: int, *, each: bool
    ) -> Trained:
        """See ``FederatedMethod``."""
        self._now.made = made = self._made(received, users)
        trained = super().train(received, users, round, each=each)
        table = trained.updates.parts[TABLE]
        if self.config.view_items == "fixed" and self.config.local.weight_decay:
            # Decay alone would move rows that only views hold.
            assert isinstance(table, Rows)
            found = _places(table.index.numpy(), made.rows, self.items)[1]
            table.values.mul_(torch.from_numpy(found).unsqueeze(-1))
        return trained

    def touched_items(self, users: LocalUsers, round: int) -> Sequences:
        """Items of the history and of its views."""
        return self._now.made.touched

    def more_data(self, users: LocalUsers, rows: np.ndarray, round: int) -> Tensors:
        """History and views in positions of ``rows``, and FedAvg's own correction.

        ``views`` int32 ``[C, 4, L]`` (the history first), ``view_lengths`` int64 ``[C, 4]``,
        ``moving`` bool ``[C, U]``: items whose vectors the contrast may move.
        """
        made: _Made = self._now.made
        items, lengths = _windows(
            (users.histories, *made.three), users.histories, rows, self.model._window()
        )
        correction = np.full(rows.shape, -np.inf, np.float32)
        at, _ = _places(rows, made.rows, self.items)
        real = made.rows >= 0
        correction[np.nonzero(real)[0], at[real]] = made.correction[real]
        moving = np.ones(rows.shape, bool)
        if self.config.view_items == "fixed":
            moving = _held(rows, users.histories, self.items)
        return {
            "correction": torch.from_numpy(correction),
            "views": torch.from_numpy(items),
            "view_lengths": torch.from_numpy(lengths),
            "moving": torch.from_numpy(moving),
        }

    def local_loss(self, parameters: Tensors, data: Tensors, key: Tensor) -> Tensor:
        """FedAvg's loss, and the contrast of one user's history with its views."""
        loss = super().local_loss(parameters, data, key)
        if not self.config.contrast:
            return loss
        table = parameters[TABLE]
        moved = torch.where(data["moving"].unsqueeze(-1), table, table.detach())
        lengths = data["view_lengths"]
        histories = Histories(data["views"], lengths, None)
        hidden = self.run_network({**parameters, TABLE: moved}, histories, key + 1)  # [4, L, D]
        newest = (lengths - 1).clamp_min(0).view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
        vectors = F.normalize(hidden.gather(1, newest).squeeze(1), dim=-1)  # [4, D]
        cosines = (vectors[1:] * vectors[0]).sum(-1)  # [3]
        config = self.config
        shared = config.denominators == "shared"
        contrast = tri_view_loss(cosines, lengths[1:] > 0, config.temperature, shared=shared)
        return loss + config.contrast * contrast

    def cost(self, lengths: np.ndarray) -> np.ndarray:
        """FedAvg's, with history and views read once more."""
        dim = self.shapes[TABLE][1]
        read = np.minimum(lengths + 8, self.model._window())
        return super().cost(lengths) + 4 * read * (16.0 * dim + read) / 2 + 32.0 * dim

    def _made(self, received: Mapping[str, np.ndarray], users: LocalUsers) -> _Made:
        histories = users.histories
        three = tuple(self.views(received, users).sequences())
        none = Sequences(np.empty(0, np.int32), np.zeros(len(users) + 1, np.int64))
        used = tuple(
            one.last(self.model._window()) if kind in self.config.uses else none
            for kind, one in zip(KINDS, three, strict=True)
        )
        own = local_items(histories, users.draws, self.config.local.negatives, self.items)
        return _Made(used, _side_by_side((histories, *used)), own.rows, own.correction)


def tri_view_loss(
    cosines: Tensor, there: Tensor, temperature: float, *, shared: bool = True
) -> Tensor:
    """The contrast of a history with its future, rephrasing and counterfactual.

    With both positives in one sum Z (``shared``) it is ``2 log Z - (s_F + s_P) / t``, at least
    ``2 ln 2``, reached when both positives are equally near and the counterfactual is far.

    Args:
        cosines: ``[3]``, of the history with each view.
        there: bool ``[3]``; a view that is not there is in no sum and no term.
        temperature: ``t``.
        shared: one denominator for both positives, or one each, with the counterfactual alone.

    Returns:
        A scalar; 0 when neither positive is there.
    """
    logits = torch.where(there, cosines / temperature, _ABSENT)
    positives, negative = logits[:2], logits[2:]
    terms = logits.logsumexp(0) - positives if shared else F.softplus(negative - positives)
    return torch.where(there[:2], terms, torch.zeros_like(terms)).sum()


def _side_by_side(parts: tuple[Sequences, ...]) -> Sequences:
    """Row by row, the items of all parts."""
    rows = np.concatenate([part.rows for part in parts])
    items = np.concatenate([part.items for part in parts])
    order = np.argsort(rows, kind="stable")
    lengths = np.sum([part.lengths for part in parts], 0)
    return Sequences(items[order].astype(np.int32), offsets_of(lengths))


def _windows(
    parts: tuple[Sequences, ...], histories: Sequences, rows: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The newest window of every part: items int32 ``[C, parts, L]``, lengths int64 ``[C, parts]``.

    ``local_windows`` leaves the newest event out, as it has no target; so one more is appended.
    """
    last = histories.last(1)
    found = [local_windows(_side_by_side((part, last)), rows, length, 1) for part in parts]
    width = max(one.items.shape[2] for one in found)
    items = np.zeros((len(histories), len(parts), width), np.int32)
    for place, one in enumerate(found):
        items[:, place, : one.items.shape[2]] = one.items[:, 0]
    return items, np.stack([one.lengths[:, 0] for one in found], 1)


def _places(rows: np.ndarray, of: np.ndarray, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Where ``of`` ``[C, V]`` stands in ``rows`` ``[C, U]``, and which rows are found there.

    Both ascend and end in -1; places are only right where ``of`` is there.
    """
    users, width = rows.shape
    step = items + 1
    begin = np.arange(users)[:, None] * step
    flat = (np.where(rows >= 0, rows, items) + begin).ravel()
    at = np.searchsorted(flat, (np.where(of >= 0, of, items) + begin).ravel()).reshape(of.shape)
    at = np.minimum(at - np.arange(users)[:, None] * width, width - 1)
    hit = (np.take_along_axis(rows, at, 1) == of) & (of >= 0)
    found = np.zeros(rows.shape, bool)
    found[np.nonzero(hit)[0], at[hit]] = True
    return at, found


def _held(rows: np.ndarray, histories: Sequences, items: int) -> np.ndarray:
    """Which of ``rows`` ``[C, U]`` are items of the user's history, bool ``[C, U]``."""
    keys = histories.rows * np.int64(items) + histories.items
    asked = np.arange(len(rows))[:, None] * np.int64(items) + rows
    return np.isin(asked, keys) & (rows >= 0)
