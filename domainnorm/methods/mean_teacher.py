"""Pseudo-labels of a moving average of the network, on strongly changed and mixed images."""

from __future__ import annotations

from domainnorm.methods.self_training import SelfTraining
from domainnorm.registry import register


@register
class MeanTeacher(SelfTraining):
    """Sure labels of a moving average of the source model, learned on changed target images.

    All of `SelfTraining` by its defaults: the loss is the mean over the labels whose confidence
    reaches ``threshold``, nothing is mixed or masked, and training goes on from the source model.

    Reference:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780,
        eq. 2.
        Differs: sure classes are learned instead of all probabilities; a row of norms for each
        domain.
    """

    starts_from: str = "source_only"
