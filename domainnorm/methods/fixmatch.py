"""The network's own confident labels of weakly changed images, on strongly changed ones."""

from __future__ import annotations

from typing import Any, Literal

from domainnorm.backbones import DomainModel
from domainnorm.methods.roles import Roles
from domainnorm.methods.self_training import SelfTraining
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class FixMatch(SelfTraining):
    """Learn the network's own confident labels of the weak view on the strong view.

    ``L_labels = 1/N Σ_n 1(max_k p_weak[n, k] >= threshold) CE(p_strong[n], argmax_k p_weak[n, k])``
    over all N target images or pixels; p_weak is of the same pass in training that moves the
    target's moments. ``threshold_rule: free`` and a ``fairness_weight`` make it FreeMatch.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        decay: Decay, in [0, 1), of a teacher that labels and is tested instead; null for none.
        threshold: Least confidence of a label, in [0, 1].
        quality: How the loss counts labels: ``mean``, ``sum`` or ``share``, see `SelfTraining`.
        **options: See `SelfTraining`.

    Reference:
        Sohn et al., FixMatch, NeurIPS 2020, arXiv:2001.07685, eq. 3 and 4; Wang et al., FreeMatch,
        ICLR 2023, arXiv:2205.07246, eq. 5 to 7 (``threshold_rule: free``) and 9 to 11
        (``fairness_weight``, see `PseudoLabels.fairness_loss` for its sign).
        Differs: images of the source are the labelled ones; as many images with labels as without,
        instead of one to seven; tested is the network, not a moving average of it.
    """

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        decay: float | None = None,
        threshold: float = 0.95,
        quality: Literal["mean", "sum", "share"] = "sum",
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"decay": decay, "threshold": threshold, "quality": quality}
        super().__init__(model, task, roles, **given, **options)
