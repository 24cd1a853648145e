"""A module of one's own, as a project has it in `problem/`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Residual(nn.Module):
    """A network whose blocks add to what goes in."""

    def __init__(self, width: int, sizes: Sequence[int], outputs: int, hidden: int = 32) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, 4) for size in sizes)
        self.first = nn.Linear(width + 4 * len(sizes), hidden)
        self.norm = nn.LayerNorm(hidden)
        self.block = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.last = nn.Linear(hidden, outputs)

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        embedded = [layer(codes[:, index]) for index, layer in enumerate(self.embeddings)]
        hidden = self.first(torch.cat([numbers, *embedded], dim=1))
        return self.last(self.norm(hidden + self.block(hidden)))
