"""Supervised training on the target domains: the upper reference."""

from __future__ import annotations

from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register


@register
class Oracle(SupervisedMethod):
    """Supervised training on the target's own labels (target-supervised reference)."""

    labelled: str = "target"
    starts_from: str = "backbone"
