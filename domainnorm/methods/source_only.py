"""Supervised training on the source domains: where adaptation starts, and its baseline."""

from __future__ import annotations

from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register


@register
class SourceOnly(SupervisedMethod):
    """Supervised training on the source; the target's images are tested under the source's norms.

    With several sources, the target's rows are the mean of theirs.
    """

    labelled: str = "source"
    starts_from: str = "backbone"
