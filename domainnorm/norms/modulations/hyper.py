"""Scale and shift computed from an embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.norms.layer import Modulation
from domainnorm.registry import register


@register
class HyperModulation(Modulation):
    """An MLP maps the embedding of each sample to its scale and shift.

    ``(scale[n], shift[n]) = (scale, shift) + W2 relu(W1 e[n] + b1) + b2``. ``e`` is the condition's
    ``embedding`` (of an image, a text, metadata); where there is none, a learned embedding of the
    sample's domain, which soft weights mix.

    Args:
        num_features: C.
        num_domains: D.
        embedding_size: E, at least 1.
        hidden: Units of the hidden layer, at least 1.

    Shape:
        ``scale``, ``shift``: (1, C), starting at 1 and 0; the last layer starts at zero, so every
        sample starts with this pair. ``domain_embedding``: (D, E), drawn from N(0, 1).

    Reference:
        Perez et al., FiLM, AAAI 2018, arXiv:1709.07871, eq. 1 and 2.
        Differs: the MLP gives the difference to a shared pair, which a pretrained layer can set.
    """

    row_names = ("domain_embedding",)

    def __init__(
        self, num_features: int, num_domains: int, *, embedding_size: int = 16, hidden: int = 64
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.scale = nn.Parameter(torch.ones(1, num_features))
        self.shift = nn.Parameter(torch.zeros(1, num_features))
        self.domain_embedding = nn.Parameter(torch.randn(num_domains, embedding_size))
        self.first = nn.Linear(embedding_size, hidden)
        self.last = nn.Linear(hidden, 2 * num_features)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, condition: Condition, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of each sample, (N, C) each.

        Raises:
            ConditionError: Neither embedding nor domain, or an embedding of another size.
        """
        difference = self.last(torch.relu(self.first(self._embedding(condition))))
        scale, shift = difference.chunk(2, dim=1)
        return self.scale + scale, self.shift + shift

    def _embedding(self, condition: Condition) -> Tensor:
        if condition.embedding is None:
            if condition.domain is None and condition.weights is None:
                raise ConditionError(
                    "hyper modulation needs an embedding or the domain of each sample; pass "
                    "embedding=, domain= or weights="
                )
            return condition.select(self.domain_embedding)
        expected = self.first.in_features
        if condition.embedding.shape[1] != expected:
            raise ConditionError(
                f"embedding has {condition.embedding.shape[1]} values per sample, expected "
                f"{expected}; set the norm's option embedding_size"
            )
        # The rows of domains get a zero gradient, not None, which DDP would wait for.
        unused = 0 * self.domain_embedding[0]
        return condition.embedding.to(self.first.weight.dtype) + unused

    @torch.no_grad()
    def start(self, scale: Tensor, shift: Tensor) -> None:
        """The shared pair becomes ``scale`` and ``shift`` (C,), all differences zero."""
        self.scale.copy_(scale.expand_as(self.scale))
        self.shift.copy_(shift.expand_as(self.shift))
        self.last.weight.zero_()
        self.last.bias.zero_()
