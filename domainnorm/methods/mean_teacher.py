"""Pseudo-labels of a moving average of the network, on strongly changed and mixed images."""

from __future__ import annotations

from domainnorm.methods.self_training import SelfTraining
from domainnorm.registry import register


@register
class MeanTeacher(SelfTraining):
    """Learn a teacher's confident labels on strongly augmented target images.

    This is `SelfTraining` with its defaults, from the source model. The loss is the mean over
    labels whose confidence reaches ``threshold``; nothing is mixed or masked. The teacher is a
    moving average of the network.

    Reference:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780,
        eq. 2.
        Differs: sure classes are learned instead of all probabilities; a row of norms for each
        domain.
    """

    starts_from: str = "source_only"
