"""What encoders of attributes share: columns of a table, any value of which may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.encoders.attributes import Attributes, Vocabulary, joined
from domainnorm.encoders.base import Batches, DomainEncoder, Estimate
from domainnorm.errors import ConditionError, DomainNormError, unknown

# Of the examples it learns from: share that lose every attribute, and number of each domain that
# means and covariance are made of.
_NOTHING, _EXAMPLES = 0.1, 1024


class AttributeEncoder(DomainEncoder):
    """Attributes of the image instead of its pixels; any of them may be missing.

    What a value is made of, and what it is where training did not have it, is up to the vocabulary.
    Columns and what is known of them are learned by `fit_encoder` and stored with the weights.

    What it learns from loses values at random. So do the examples behind means and covariance, as
    many for each domain and the same columns in all of them; then an image of which nothing is
    known lies about equally far from all domains, whatever their sizes.

    Args:
        num_domains: D.
        known: A vocabulary of no columns.
        dropout: Probability with which an example loses a value, in [0, 1).
        hidden: Width of the MLP.
        embedding: Size of the embedding, E; at least D for equal weights where nothing is known.

    Raises:
        DomainNormError: A dropout out of range.

    Reference:
        Neverova et al., ModDrop, TPAMI 2016, arXiv:1501.00102 (inputs that are dropped whole).
    """

    reads_attributes: bool = True
    vocabulary: Tensor

    def __init__(
        self, num_domains: int, known: Vocabulary, *, dropout: float, hidden: int, embedding: int
    ) -> None:
        if not 0 <= dropout < 1:
            raise DomainNormError(f"encoder.dropout: got {dropout}, expected a number in [0, 1)")
        super().__init__(num_domains, known.size, hidden=hidden, embedding=embedding)
        self.dropout = dropout
        self._known = known
        self.register_buffer("vocabulary", self._known.to_tensor())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the attributes; none before it is fitted."""
        return self._known.columns

    def inputs(self, image: Tensor, attributes: Attributes | None) -> Attributes:
        """The attributes, checked against the images they are of.

        Raises:
            ConditionError: None given, a column it does not know, or another number of values.
        """
        if not self.columns:
            self.check_fitted()
        if torch.compiler.is_compiling():
            raise ConditionError(
                f"encoder '{self._known.encoder}': reads text, which cannot be compiled; pass "
                "weights=model.estimate(image, attributes).weights, or end to end "
                "embedding=model.embed(image, attributes)"
            )
        names = ", ".join(self.columns)
        if attributes is None:
            raise ConditionError(
                f"attributes: missing; encoder '{self._known.encoder}' estimates the domain by "
                f"{names}: pass attributes={{column: [value or None of each image]}}, {{}} where "
                "nothing is known, or the domain"
            )
        for column, given in attributes.items():
            if column not in self.columns:
                raise ConditionError(f"attributes: {unknown('column', column, self.columns)}")
            if isinstance(given, str) or len(given) != len(image):
                found = repr(given) if isinstance(given, str) else f"{len(given)} values"
                raise ConditionError(
                    f"attributes: column '{column}' has {found} for {len(image)} images; give one "
                    "value, or None, for each"
                )
        nothing = [None] * len(image)
        return {column: attributes.get(column, nothing) for column in self.columns}

    def read(self, given: Attributes) -> Tensor:
        """See `features`."""
        return self.features(given)

    def features(self, attributes: Attributes) -> Tensor:
        """Attributes of N images as vectors, (N, F); see `Vocabulary`."""
        return self._known.vectors(attributes).to(self.location)

    def forward(self, attributes: Attributes) -> Estimate:
        """Estimate the domain of each image by its attributes, see `inputs`.

        Raises:
            ConditionError: It was not fitted.
        """
        self.check_fitted()
        return self.judge(self.features(attributes))

    def standardize(self, features: Tensor) -> None:
        """Nothing: numbers are standardized already, the rest is in [-1, 1]."""

    def prepare(self, training: Batches, generator: torch.Generator) -> None:
        """Learn columns and values; the first layer starts anew.

        Raises:
            ConditionError: There are images and no columns.
        """
        seen = [attributes for attributes, _ in training]
        known = self._known.learned(joined(seen))
        if seen and not known.columns:
            raise ConditionError(
                f"encoder '{self._known.encoder}': no attributes to learn from; give some columns, "
                "data.attributes in a recipe"
            )
        self._resize(known)
        weight, active = self._first.weight, max(1, len(known.columns))  # inputs that are not 0
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=generator) * active**-0.5)

    def grow(self, images: Batches, generator: torch.Generator) -> None:
        """Give what is new a random row each, by which it differs from what is known."""
        former = self._first.weight.detach().clone()
        self._resize(self._known.extended(joined(attributes for attributes, _ in images)))
        added = self._known.size - former.shape[1]
        with torch.no_grad():
            fresh = torch.randn(len(former), added, generator=generator).to(former) * former.std()
            self._first.weight.copy_(torch.cat([former, fresh], 1))

    def varied(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """Features (N, F) that have lost values at random."""
        lost = self._dropped(len(features), generator)
        return self._without(self.thinned(features, generator), lost)

    def thinned(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """Features (N, F) that have lost parts of values; the same unless overridden."""
        return features

    def examples(
        self, features: Tensor, domain: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Features of as many examples of each domain, and their labels.

        What images lack is taken from others of their domain first. Then the same values are lost
        in all domains: what remains tells them apart, not what is lost.
        """
        lost, made = self._dropped(_EXAMPLES, generator), []
        labels = sorted(set(domain.tolist()))
        for label in labels:
            own = features[domain == label]
            drawn = torch.randint(len(own), (_EXAMPLES,), generator=generator)
            made.append(self._filled(own[drawn.to(own.device)], own, generator))
        lost = lost.repeat(len(labels), 1)
        of_domain = torch.tensor(labels).repeat_interleave(_EXAMPLES).to(domain.device)
        return self._without(self.thinned(torch.cat(made), generator), lost), of_domain

    def _filled(self, features: Tensor, own: Tensor, generator: torch.Generator) -> Tensor:
        """Features (N, F) with missing values from images that have them, (M, F)."""
        filled, owners = features.clone(), torch.tensor(self._known.owners)
        for column in range(len(self.columns)):
            gaps = (features[:, column] == 1).nonzero()
            donors = (own[:, column] < 1).nonzero()[:, 0]
            if len(donors):
                chosen = torch.randint(len(donors), (len(gaps),), generator=generator)
                places = (owners == column).nonzero()[:, 0].to(gaps.device)
                given = donors[chosen.to(donors.device)][:, None]
                filled[gaps, places] = own[given, places]
        return filled

    def _dropped(self, number: int, generator: torch.Generator | None) -> Tensor:
        """Whether each of N examples loses the value of each of A columns, (N, A)."""
        single = torch.rand(number, len(self.columns), generator=generator) < self.dropout
        return single | (torch.rand(number, 1, generator=generator) < _NOTHING)

    def _without(self, features: Tensor, lost: Tensor) -> Tensor:
        """Features (N, F) without the values of the columns that are lost, (N, A)."""
        missing = torch.zeros_like(features)
        missing[:, : len(self.columns)] = 1
        return torch.where(lost[:, self._known.owners].to(features.device), missing, features)

    def shapes_in(self, stored: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Shapes of its tensors once it has the vocabulary of a file.

        Raises:
            CheckpointError: The vocabulary is none.
        """
        if "vocabulary" not in stored:
            return {}
        size = self._known.of_tensor(stored["vocabulary"]).size
        return {
            "vocabulary": tuple(stored["vocabulary"].shape),
            "location": (size,),
            "spread": (size,),
            "mlp.0.weight": (self._first.out_features, size),
        }

    @property
    def _first(self) -> nn.Linear:
        layer = self.mlp[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def _resize(self, known: Vocabulary) -> None:
        """Take on a vocabulary; what had a place for each value gets another size and no values."""
        self._known, layer = known, self._first
        self.vocabulary = known.to_tensor().to(self.location.device)
        self.location = self.location.new_zeros(known.size)
        self.spread = self.spread.new_ones(known.size)
        layer.in_features = known.size
        weight = layer.weight.new_zeros(layer.out_features, known.size)
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *further: Any
    ) -> None:
        stored = state_dict.get(f"{prefix}vocabulary")
        if stored is not None:
            self._resize(self._known.of_tensor(stored))
        super()._load_from_state_dict(state_dict, prefix, *further)
