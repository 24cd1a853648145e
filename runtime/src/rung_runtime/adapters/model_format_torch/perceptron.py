"""The network that is trained unless `problem/` has one of its own."""

# mypy: disable-error-code="misc,no-any-return"
# (Where torch is not installed, its types are not known.)

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

MAX_EMBEDDING = 16


class Perceptron(nn.Module):
    """A multilayer perceptron on numbers and on embeddings of categories."""

    def __init__(
        self,
        width: int,
        sizes: Sequence[int],
        outputs: int,
        hidden: Sequence[int],
        dropout: float,
    ) -> None:
        """Make a network with random weights.

        Args:
            width: How many numbers it takes.
            sizes: How many codes each column of categories has.
            outputs: How many scores it returns: one for each class, or one for a regression.
            hidden: The width of each hidden layer.
            dropout: The share of a hidden layer that is left out in training.
        """
        super().__init__()
        embedded = [min(MAX_EMBEDDING, 1 + size // 2) for size in sizes]
        self.embeddings = nn.ModuleList(map(nn.Embedding, sizes, embedded))
        widths = [width + sum(embedded), *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs_of_layer in pairwise(widths):
            layers += [nn.Linear(inputs, outputs_of_layer), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return (n, outputs) scores of (n, width) numbers and (n, columns) codes."""
        embedded = [embedding(codes[:, index]) for index, embedding in enumerate(self.embeddings)]
        return self.layers(torch.cat([numbers, *embedded], dim=1))
