"""RQ-VAE: an autoencoder whose middle is coded level by level (Zeghidour 2021; TIGER, 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.codes.books import ResidualBooks
from foretaste.codes.kmeans import kmeans, nearest
from foretaste.codes.tokenizer import FitContext, Tokenizer, TokenizerConfig

START_ITEMS = 16_384
"""Items whose latent vectors the first codebooks are made of."""


class RQVAEConfig(TokenizerConfig):
    """The autoencoder and how it is trained.

    Attributes:
        dim: width of the latent vectors and of the codebooks.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        steps: of training.
        batch_items: items of a step.
        learning_rate: of AdamW.
        commitment: weight of drawing the latent vectors to their codes (beta of VQ-VAE).
    """

    kind: Literal["rqvae"] = "rqvae"
    dim: int = Field(default=32, ge=1)
    hidden: tuple[int, ...] = (256, 128)
    steps: int = Field(default=1_000, ge=1)
    batch_items: int = Field(default=1_024, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    commitment: float = Field(default=0.25, ge=0)


class Coded(NamedTuple):
    """Latent vectors on their way through the codebooks.

    Attributes:
        quantized: ``[n, D]``, the sum of the codes' vectors.
        loss: of codebooks and commitment, a scalar.
        codes: int64 ``[n]`` of each level.
    """

    quantized: Tensor
    loss: Tensor
    codes: list[Tensor]


class Autoencoder(nn.Module):
    """Encoder, codebooks, decoder. Inputs are centred and scaled to a mean squared length of 1."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, config: RQVAEConfig) -> None:
        """``width`` of the item vectors."""
        super().__init__()
        widths = [width, *config.hidden, config.dim]
        self.encoder, self.decoder = _layers(widths), _layers(widths[::-1])
        self.books = nn.ParameterList(
            nn.Parameter(torch.zeros(config.size, config.dim)) for _ in range(config.levels)
        )
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def normalise(self, points: Tensor) -> None:
        """Learn centre and scale."""
        self.mean.copy_(points.mean(0))
        lengths = (points - self.mean).square().sum(1).mean().sqrt()
        self.scale.copy_(lengths.clamp_min(1e-12))

    def encode(self, points: Tensor) -> Tensor:
        """Latent vectors ``[n, dim]`` of item vectors ``[n, width]``."""
        return self.encoder((points - self.mean) / self.scale)

    def decode(self, latent: Tensor) -> Tensor:
        """Item vectors ``[n, width]``."""
        return self.decoder(latent) * self.scale + self.mean


class RQVAE(Tokenizer):
    """RQ-VAE as TIGER uses it. It may collapse: its report says so."""

    name: ClassVar[str] = "rqvae"
    Config: ClassVar[type[TokenizerConfig]] = RQVAEConfig
    network: Autoencoder

    def _fit(self, points: Tensor, context: FitContext) -> None:
        generator = torch.Generator().manual_seed(context.seed)
        self.network = self._network(points.shape[1], context.seed).to(points.device)
        self.network.normalise(points)
        config: RQVAEConfig = self.config
        optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=0.0
        )
        self._begin_books(points, generator)
        with context.progress.task("steps", config.steps) as task:
            for step in range(config.steps):
                drawn = torch.randint(len(points), (config.batch_items,), generator=generator)
                loss = self._loss(points[drawn.to(points.device)])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                task.advance(note=f"loss {loss.item():.4f}" if step % 50 == 0 else "")
        self._finish(points)

    def _network(self, width: int, seed: int) -> Autoencoder:
        """A fresh network; the program's own random numbers are not touched."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Autoencoder(width, self.config)

    @torch.no_grad()
    def _begin_books(self, points: Tensor, generator: torch.Generator) -> None:
        """Residual k-means in the latent space, as TIGER begins."""
        drawn = torch.randperm(len(points), generator=generator)[:START_ITEMS]
        rest = self.network.encode(points[drawn.to(points.device)])
        for book in self.network.books:
            book.copy_(kmeans(rest, len(book), generator))
            rest = rest - book[nearest(rest, book)[0]]

    def _loss(self, batch: Tensor) -> Tensor:
        """Of reconstruction, codebooks and commitment, for a batch of item vectors."""
        latent = self.network.encode(batch)
        found = self._through(latent)
        straight = latent + (found.quantized - latent).detach()
        missed = (self.network.decode(straight) - batch) / self.network.scale
        return missed.square().sum(1).mean() + found.loss

    def _through(self, latent: Tensor) -> Coded:
        """Through the codebooks, with the loss that teaches them."""
        rest, quantized, codes = latent, torch.zeros_like(latent), []
        loss = latent.new_zeros(())
        for level, book in enumerate(self.network.books):
            codes.append(self._chosen(rest.detach(), level))
            vectors = book[codes[-1]]  # [n, D]
            loss = loss + (vectors - rest.detach()).square().sum(1).mean()
            drawn = (rest - vectors.detach()).square().sum(1).mean()
            loss = loss + self.config.commitment * drawn
            quantized = quantized + vectors
            rest = rest - vectors.detach()
        return Coded(quantized, loss, codes)

    def _chosen(self, rest: Tensor, level: int) -> Tensor:
        """The code of each vector at this level, int64 ``[n]``."""
        return nearest(rest, self.network.books[level].detach())[0]

    def _finish(self, points: Tensor) -> None:
        """Make ``books`` of what was learnt."""
        del points
        self.network.eval().requires_grad_(False)
        self.books = ResidualBooks([book.data for book in self.network.books])

    def _latent(self, points: Tensor) -> Tensor:
        return self.network.encode(points)

    def _restored(self, latent: Tensor) -> Tensor:
        return self.network.decode(latent)

    def _arrays(self) -> dict[str, np.ndarray]:
        state = self.network.state_dict()
        return {f"network.{name}": value.cpu().numpy() for name, value in state.items()}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.network = self._network(self.width, 0)
        state = {
            name.removeprefix("network."): torch.from_numpy(value)
            for name, value in arrays.items()
            if name.startswith("network.")
        }
        self.network.load_state_dict(state)
        self.network.to(self.context.torch_device).eval().requires_grad_(False)
        self.books = ResidualBooks([book.data for book in self.network.books])


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
