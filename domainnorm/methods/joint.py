"""One model for all labelled domains, each under its own norms."""

from __future__ import annotations

from domainnorm.methods.base import SupervisedMethod
from domainnorm.registry import register


@register
class Joint(SupervisedMethod):
    """Supervised training on all domains, source and target, mixed in every batch (supervised).

    Everything but the norms is shared. Reads the target's labels.

    Reference:
        Rebuffi et al., Learning multiple visual domains with residual adapters, NeurIPS 2017,
        arXiv:1705.08045, sec. 3 (domain-specific normalization as the baseline).
    """

    labelled: str = "all"
    starts_from: str = "backbone"
