"""Text about the image (devices, descriptions, reports) as its domain."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from domainnorm.encoders.attribute_encoder import AttributeEncoder, Vocabulary
from domainnorm.encoders.base import check_sizes
from domainnorm.registry import register

_WORD = re.compile(r"[^\W_]+")
_LENGTHS = (3, 4, 5)  # of n-grams


@dataclass(frozen=True)
class Wording(Vocabulary):
    """A `Vocabulary` whose values are made of words and n-grams, in hashed buckets.

    Args:
        columns: Names of the A columns.
        numbers: Mean and spread of those that hold numbers.
        values: Known buckets of the others as (column, bucket), in the order they were learned.
        buckets: Most buckets of a column.
    """

    encoder: ClassVar[str] = "text"
    most: ClassVar[int] = 2**31  # buckets are bounded already
    buckets: int = 4096

    def parts(self, column: str, text: str) -> Mapping[str, float]:
        """Signed buckets of the words of a text, each distinct word once, as a unit vector.

        ``v[b] = Σ_{w} Σ_{g of w: bucket(g) = b} sign(g) / norm``.
        """
        found: Counter[int] = Counter()
        for word in set(words(text)):
            for place in places(column, word):
                bucket, sign = divmod(place, 2)
                found[bucket % self.buckets] += 2 * sign - 1
        norm = math.sqrt(sum(count**2 for count in found.values()))
        return {str(bucket): count / norm for bucket, count in sorted(found.items()) if count}


def words(text: str) -> list[str]:
    """Runs of letters and digits, whatever their case and their form in Unicode."""
    return _WORD.findall(
        unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    )


def grams(word: str) -> set[str]:
    """A word between marks of its ends, and its n-grams of 3 to 5 characters."""
    marked = f"<{word}>"
    cut = {marked[k : k + n] for n in _LENGTHS for k in range(len(marked) - n + 1)}
    return cut | {marked}


@lru_cache(maxsize=2**14)
def places(column: str, word: str) -> tuple[int, ...]:
    """Hashes of 64 bits of the n-grams of a word, other ones in each column."""
    return tuple(
        int.from_bytes(blake2b(f"{column}\0{gram}".encode(), digest_size=8).digest(), "little")
        for gram in grams(word)
    )


@register
class TextEncoder(AttributeEncoder):
    """Attributes of the image as free text, also with values that training did not have.

    In each text column, words and character n-grams are hashed into signed buckets and divided by
    their common norm. A new value is recognized by parts that it shares with known values, such as
    the maker of a model, or a word with a typing error. Parts that no training image had have no
    learned row and count as missing, by their share of the squared norm; a text without any known
    part is wholly missing. Columns of numbers are standardized as in `MetadataEncoder`, since
    n-grams do not know that 39.9 is close to 40.

    Training examples lose values, and a random share of the buckets of each text.

    Args:
        num_domains: D.
        network: Not used.
        in_chans: Not used.
        buckets: Most buckets of a column, at least 1; fewer need less memory and mix more n-grams.
            A weights file keeps its own number.
        **options: See `AttributeEncoder`.

    Raises:
        DomainNormError: A dropout out of range, or a size below 1.

    Reference:
        Weinberger et al., Feature Hashing for Large Scale Multitask Learning, ICML 2009,
        arXiv:0902.2206, eq. 2 (signs make inner products unbiased); Bojanowski et al., Enriching
        Word Vectors with Subword Information, TACL 2017, arXiv:1607.04606, sec. 3.2 (n-grams).
        Differs: each distinct word of a text counts once, and columns have buckets of their own.
    """

    def __init__(
        self,
        num_domains: int,
        network: nn.Module | None = None,
        in_chans: int = 3,
        *,
        buckets: int = 4096,
        **options: Any,
    ) -> None:
        check_sizes(buckets=buckets)
        super().__init__(num_domains, Wording(buckets=buckets), **options)

    def thinned(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """Features (N, F) that have lost a share of the buckets of each text, from none to all."""
        known = self._known
        number, first = len(features), len(known.columns) + len(known.numbers)
        owners = torch.tensor(known.owners[first:], dtype=torch.long)
        share = torch.rand(number, len(known.columns), generator=generator)
        stay = torch.rand(number, len(owners), generator=generator) >= share[:, owners]
        stay, owners = stay.to(features.device), owners.to(features.device)
        text = features[:, first:]
        lost = torch.zeros_like(features)
        lost.index_add_(1, owners, (text * ~stay).square())
        lost[:, first:] = -text * ~stay
        return features + lost
