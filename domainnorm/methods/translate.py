"""Images in the style of another domain by an adversary, and ways back that keep the content."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss
from torch.nn.utils.parametrizations import spectral_norm

from domainnorm.backbones import DomainModel
from domainnorm.losses import (
    patch_contrast_loss,
    patch_domain_loss,
    patch_taken_loss,
    variation_loss,
)
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.stylize import TranslatingMethod
from domainnorm.registry import register
from domainnorm.tasks import Translation


def create_patch_classifier(channels: int, num_domains: int, width: int) -> nn.Module:
    """A network (N, C, H, W) -> (N, D, h, w) that sees patches of 18 pixels.

    Its kernels have spectral norm 1; it has no other norms, which would hide the colours that
    domains differ in.
    """
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, width, 4, stride=2, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(2 * width, num_domains, 1)),
    )


@register
class Translate(TranslatingMethod):
    """One network that gives images the style of any domain, judged by a classifier of patches.

    Of each batch every image x is asked for a domain at random, and y is what the network gives. A
    classifier of patches learns beside it to say of each domain whether a patch is a real one of
    it. ``loss = adversarial_weight · patch_taken(y) + cycle_weight (G(y, own domain) − x)² +
    contrast_weight · patch_contrast(y, x) + variation_weight variation(y − x)`` of images asked for
    another domain, ``+ identity_weight (y − x)²`` of those asked for their own. Labels are not
    used, and all domains are seen alike.

    Args:
        model: The network, a translator.
        task: Translation.
        roles: Source and target domains.
        adversarial_weight: Weight of what the classifier says of translated images.
        cycle_weight: Weight of the mean squared difference of images and what comes back.
        identity_weight: Weight of the mean squared change of images asked for their own domain.
        contrast_weight: Weight of the contrast of places at level 2 of the frozen network; 0
            leaves that network out of training.
        variation_weight: Weight of the total variation of what is added to the images.
        temperature: Of the contrast.
        hidden: Channels of the first layer of the classifier.
        **options: See `TranslatingMethod`.

    Reference:
        Choi et al., StarGAN, CVPR 2018, arXiv:1711.09020, sec. 3.1; Park et al., Contrastive
        Learning for Unpaired Image-to-Image Translation, ECCV 2020, arXiv:2007.15651, sec. 3.
        Differs: hinge losses, one output for each domain, a classifier of small patches that learns
        in the same step, images in their own style, and squared differences: with absolute ones the
        network, which starts as the identity, stayed there.
    """

    def __init__(
        self,
        model: DomainModel,
        task: Translation,
        roles: Roles,
        *,
        adversarial_weight: float = 1.0,
        cycle_weight: float = 10.0,
        identity_weight: float = 10.0,
        contrast_weight: float = 0.0,
        variation_weight: float = 0.5,
        temperature: float = 0.07,
        hidden: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.adversarial_weight = adversarial_weight
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight
        self.contrast_weight = contrast_weight
        self.variation_weight = variation_weight
        self.temperature = temperature
        network: Any = model.backbone
        self.classifier = create_patch_classifier(network.channels, model.num_domains, hidden)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one mixed batch, each image asked for the domain of some image of it."""
        image, domain, asked = batch["image"], batch["domain"], self.asked(batch)
        made = self.model(image, asked.domain, embedding=asked.embedding)
        other = asked.domain != domain
        real, shown = self.classifier(image), self.classifier(made[other].detach())
        losses = {"classifier": patch_domain_loss(real, domain, shown, asked.domain[other])}
        if bool(other.any()):
            own = None if asked.own is None else asked.own[other]
            back = self.model(made[other], domain[other], embedding=own)
            losses["cycle"] = self.cycle_weight * mse_loss(back, image[other])
            losses |= self._of_others(image[other], made[other], asked.domain[other])
        if not bool(other.all()):
            losses["identity"] = self.identity_weight * mse_loss(made[~other], image[~other])
        return losses

    def _of_others(self, image: Tensor, made: Tensor, asked: Tensor) -> dict[str, Tensor]:
        """Losses of what was made of images (N, C, H, W) in another style than their own."""
        # The classifier must not learn from what the network wants it to say.
        fixed = {name: given.detach() for name, given in self.classifier.named_parameters()}
        taken = patch_taken_loss(functional_call(self.classifier, fixed, (made,)), asked)
        losses = {
            "adversarial": self.adversarial_weight * taken,
            "variation": self.variation_weight * variation_loss(made - image),
        }
        if self.contrast_weight:
            with torch.no_grad():
                wanted = self.task.levels(image)[-1]
            contrast = patch_contrast_loss(self.task.levels(made)[-1], wanted, self.temperature)
            losses["contrast"] = self.contrast_weight * contrast
        return losses
