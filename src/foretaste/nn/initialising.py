"""First weights."""

from __future__ import annotations

from torch import nn

WIDTH = 0.02


def small_normal(module: nn.Module) -> None:
    """Normal weights of width 0.02 and zero biases for linear layers and embeddings.

    For ``network.apply``. Small item vectors make the first softmax over a catalog nearly
    uniform, so that the first steps are not spent on undoing chance.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=WIDTH)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def by_width(module: nn.Module) -> None:
    """Glorot's weights for linear layers, vectors of length about 1 for embeddings, zero biases.

    For ``network.apply``, where a signal passes layers that no residual path goes round: small
    weights would leave nothing of it.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
