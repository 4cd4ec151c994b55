"""Beam search over a trie, and the exact scores of the whole catalog to check it by."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from foretaste.codes.trie import Children, Trie
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError, NotNumbersError

ROWS_AT_ONCE = 4_096
"""Prefixes that a model is asked about together when a whole catalog is scored."""


class Step(NamedTuple):
    """What a model is asked: the logits of the next token after each of ``R`` prefixes.

    Attributes:
        level: tokens of each prefix.
        queries: int64 ``[R]``, the query of each prefix.
        tokens: int64 ``[R, level]``, the prefixes.
        parents: int64 ``[R]``, the row of the step before that each prefix goes on from, to reorder
            what was kept of it; None at the first step, and when no step went before.
    """

    level: int
    queries: Tensor
    tokens: Tensor
    parents: Tensor | None


class StepLogits(Protocol):
    """A model that writes paths token by token."""

    def __call__(self, step: Step) -> Tensor:
        """Logits ``[R, V]``, of all tokens of the level at least (``Trie.widths``)."""
        ...


class FoundItems(NamedTuple):
    """Items of each query, best first.

    Attributes:
        items: int64 ``[B, k]``; -1 where a query has fewer.
        log_probs: ``[B, k]``, the log-probability of the item's whole path; -inf there.
        tokens: int64 ``[B, k, L]``, what was written for it; -1 where nothing was. None where items
            are scored and nothing is written.
    """

    items: Tensor
    log_probs: Tensor
    tokens: Tensor | None = None


class _Beams(NamedTuple):
    """The paths of each query that are followed; ``W`` of them.

    Attributes:
        nodes: int64 ``[B, W]``, where each path stands; -1 for none.
        scores: ``[B, W]``; -inf for none.
        tokens: int64 ``[B, W, level]``.
        rows: int64 ``[B, W]``, the row of each path in the last question; -1 when not asked.
    """

    nodes: Tensor
    scores: Tensor
    tokens: Tensor
    rows: Tensor


def beam_search(
    step_logits: StepLogits,
    trie: Trie,
    queries: int,
    width: int,
    k: int | None = None,
    *,
    renormalise: bool = False,
    hidden: Sequences | None = None,
    sure: Tensor | None = None,
) -> FoundItems:
    """The items whose paths a model finds most likely, along at most ``width`` paths at a time.

    No path outside the trie is ever followed. The score of a path is the sum of its tokens'
    log-probabilities; shorter paths are not favoured otherwise. With a width of all nodes of a
    level the search is exact.

    Args:
        step_logits: the model.
        trie: the catalog.
        queries: ``B``.
        width: paths of each query that are followed.
        k: items of each query, at most ``width``; by default as many.
        renormalise: whether probabilities are taken among the tokens that may follow; otherwise
            among all, so that what a model gives to paths outside the catalog is lost.
        hidden: for each query the items that are not wanted, such as those of its history. They
            take no room at their last token; a query may still end with fewer than ``k`` items
            when ``width`` is too small.
        sure: bool ``[nodes]``, the nodes with one path below, to which the model is known to give
            everything. There it is not asked, and loses no time on what it would say.

    Raises:
        InputError: for a width below 1 or beyond the catalog, ``k`` outside 1..width, ``hidden`` of
            another number of queries, or logits that are NaN or too few.
        NoContinuationError: never, unless the trie is damaged.
    """
    k = width if k is None else k
    _check(trie, queries, width, k, hidden)
    unwanted = None if hidden is None else _pairs(hidden, len(trie), trie.device)
    search = _Search(step_logits, trie, width, renormalise, unwanted, sure)
    beams = _Beams(
        trie.start(queries)[:, None],
        torch.zeros(queries, 1, device=trie.device),
        torch.zeros(queries, 1, 0, dtype=torch.int64, device=trie.device),
        torch.full((queries, 1), -1, device=trie.device),
    )
    for level in range(trie.depth):
        going_on = (beams.nodes >= 0) & (search.items(beams.nodes) < 0)
        if not bool(going_on.any()):
            break
        beams = search.advance(beams, going_on, level)
    return _padded(search.items(beams.nodes), beams, k)


class _Search(NamedTuple):
    """What stays the same from step to step; ``unwanted`` are ``_pairs``."""

    step_logits: StepLogits
    trie: Trie
    width: int
    renormalise: bool
    unwanted: Tensor | None
    sure: Tensor | None

    def items(self, nodes: Tensor) -> Tensor:
        """The item at which each path ends; -1 where it goes on, or is none."""
        found = self.trie.items(nodes.clamp_min(0).flatten()).view_as(nodes)
        return found.masked_fill(nodes < 0, -1)

    def advance(self, beams: _Beams, going_on: Tensor, level: int) -> _Beams:
        """One token further; paths that have ended stay in the race as they are."""
        query, beam = going_on.nonzero(as_tuple=True)  # [R]
        following = self.trie.children(beams.nodes[query, beam])
        gained, rows = self._gained(beams, query, beam, following)
        shape = (*beams.nodes.shape, following.tokens.shape[1])  # [B, W, C]
        scores = beams.scores.new_full(shape, -torch.inf)
        nodes = torch.full(shape, -1, device=self.trie.device)
        tokens = torch.full_like(nodes, -1)
        scores[query, beam] = beams.scores[query, beam, None] + gained
        nodes[query, beam], tokens[query, beam] = following.nodes, following.tokens
        scores = self._without_unwanted(scores, nodes)
        ended = (beams.nodes >= 0) & ~going_on
        scores[..., 0] = torch.where(ended, beams.scores, scores[..., 0])
        nodes[..., 0] = torch.where(ended, beams.nodes, nodes[..., 0])
        best = scores.flatten(1).topk(min(self.width, shape[1] * shape[2]), dim=1)
        origin = best.indices // shape[2]  # [B, W]
        history = beams.tokens.gather(1, origin[..., None].expand(-1, -1, level))
        written = tokens.flatten(1).gather(1, best.indices)[..., None]
        return _Beams(
            nodes.flatten(1).gather(1, best.indices).masked_fill(best.values.isneginf(), -1),
            best.values,
            torch.cat([history, written], 2),
            rows.gather(1, origin),
        )

    def _gained(
        self, beams: _Beams, query: Tensor, beam: Tensor, following: Children
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``[R, C]`` of what may follow paths, and the new ``rows`` of beams."""
        level, asked = beams.tokens.shape[2], slice(None)
        gained = torch.zeros(following.real.shape, device=self.trie.device)
        if self.sure is not None:
            gained.masked_fill_(~following.real, -torch.inf)
            asked = (~self.sure[beams.nodes[query, beam]]).nonzero().squeeze(1)
            query, beam = query[asked], beam[asked]
            following = Children(*(part[asked] for part in following))
        rows = torch.full_like(beams.nodes, -1)
        rows[query, beam] = torch.arange(len(query), device=rows.device)
        if len(query):
            parents = beams.rows[query, beam] if level else None
            logits = self.step_logits(Step(level, query, beams.tokens[query, beam], parents))
            width = self.trie.widths[level]
            gained[asked] = _log_probs(logits, following, width, self.renormalise)
        return gained, rows

    def _without_unwanted(self, scores: Tensor, nodes: Tensor) -> Tensor:
        """Scores ``[B, W, C]`` with those of unwanted items at -inf."""
        if self.unwanted is None:
            return scores
        items = self.items(nodes)
        query = torch.arange(len(nodes), device=nodes.device)[:, None, None]
        # An inner node has the item -1, which would read as the last one of the query before.
        unwanted = torch.isin(query * len(self.trie) + items, self.unwanted) & (items >= 0)
        return scores.masked_fill(unwanted, -torch.inf)


def score_catalog(
    step_logits: StepLogits, trie: Trie, queries: int, *, renormalise: bool = False
) -> Tensor:
    """The log-probability of every item of the catalog, ``[B, N]``, exactly.

    Every node of the trie is asked about once, level by level, so a model is asked about as many
    prefixes as the trie has inner nodes, for each query: for checks, not for serving. The model
    is given no ``parents``; it must read the whole prefix.

    Raises:
        InputError: for logits that are NaN or too few.
    """
    device = trie.device
    found = torch.full((queries, len(trie)), -torch.inf, device=device)
    for query in range(queries):
        scores = torch.zeros(1, device=device)
        for depth in range(trie.depth):
            begin, end, last = trie.levels[depth : depth + 3]
            nodes = torch.arange(begin, end, device=device)
            inner = nodes[trie.items(nodes) < 0]
            below = torch.full((last - end,), -torch.inf, device=device)
            for some in inner.split(ROWS_AT_ONCE):
                owner = torch.full_like(some, query)
                step = Step(depth, owner, trie.paths(some, depth), None)
                following = trie.children(some)
                logits, width = step_logits(step), trie.widths[depth]
                gained = _log_probs(logits, following, width, renormalise)
                summed = scores[some - begin, None] + gained
                below[following.nodes[following.real] - end] = summed[following.real]
            scores = below
            ends = torch.arange(end, last, device=device)
            items = trie.items(ends)
            found[query, items[items >= 0]] = scores[items >= 0]
    return found


def share_found(found: FoundItems, exact: Tensor, k: int) -> Tensor:
    """For each query the share of its exact best ``k`` items that a search found, ``[B]``.

    Args:
        found: what ``beam_search`` gave; its first ``k`` count.
        exact: what ``score_catalog`` gave.
        k: at most the catalog.

    Raises:
        InputError: when ``k`` is outside 1..catalog.
    """
    if not 1 <= k <= exact.shape[1]:
        raise InputError(f"k = {k} must be between 1 and the catalog's {exact.shape[1]} items.")
    best = exact.topk(k, dim=1).indices
    return (best[:, :, None] == found.items[:, None, :k]).any(2).float().mean(1)


def _log_probs(logits: Tensor, following: Children, width: int, renormalise: bool) -> Tensor:
    """Log-probabilities ``[R, C]`` of what may follow, tokens below ``width``; -inf on padding."""
    rows, padding = len(following.tokens), ~following.real
    if logits.ndim != 2 or len(logits) != rows or logits.shape[1] < width:
        raise InputError(
            f"logits {list(logits.shape)} for {rows} prefixes and tokens up to {width - 1}: the "
            "model and the codes do not fit each other."
        )
    chosen = logits.gather(1, following.tokens).float().masked_fill(padding, -torch.inf)
    total = (chosen if renormalise else logits.float()).logsumexp(1, keepdim=True)
    if bool(total.isnan().any()):
        raise NotNumbersError("the model's logits are NaN. Train it with a lower learning rate.")
    # A model that gives nothing to any token that may follow gives nothing to the path.
    return chosen - total.masked_fill(total.isneginf(), 0)


def _check(trie: Trie, queries: int, width: int, k: int, hidden: Sequences | None) -> None:
    if width < 1:
        raise InputError(f"beam width = {width} must be at least 1.")
    if width > len(trie):
        raise InputError(
            f"beam width = {width:,} is more than the catalog's {len(trie):,} items. Lower it."
        )
    if not 1 <= k <= width:
        raise InputError(f"k = {k} must be between 1 and the beam width {width}. Widen the beam.")
    if hidden is not None and len(hidden) != queries:
        raise InputError(f"hidden items of {len(hidden)} queries, asked are {queries}.")


def _pairs(hidden: Sequences, items: int, device: torch.device) -> Tensor:
    """Unwanted (query, item) pairs as numbers ``query * items + item``."""
    known = hidden.items >= 0
    pairs = hidden.rows[known] * items + hidden.items[known]
    return torch.from_numpy(pairs).to(device)


def _padded(items: Tensor, beams: _Beams, k: int) -> FoundItems:
    """The first ``k``, which are the best: beams are in order."""
    scores, tokens, missing = beams.scores, beams.tokens, k - items.shape[1]
    if missing > 0:
        items = torch.nn.functional.pad(items, (0, missing), value=-1)
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
        tokens = torch.nn.functional.pad(tokens, (0, 0, 0, missing), value=-1)
    scores = scores[:, :k]
    return FoundItems(items[:, :k].masked_fill(scores.isneginf(), -1), scores, tokens[:, :k])
