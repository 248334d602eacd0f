"""Images in the style of another domain by a perceptual loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.condition import Estimate
from domainnorm.evaluation import StyleJudge, style_distances
from domainnorm.losses import content_loss, style_loss, variation_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.supervised import ImageMethod
from domainnorm.registry import register
from domainnorm.tasks import Translation


class Asked(NamedTuple):
    """What the N images of a batch are asked for.

    Args:
        domain: Whose style, (N,).
        image: Positions in the batch of images that have the style, (N,); its own of one that is
            asked for its own domain.
        embedding: Of these images or of their attributes, (N, E), where norms take it; else None.
        own: Of the images of the batch themselves.
    """

    domain: Tensor
    image: Tensor
    embedding: Tensor | None
    own: Tensor | None


class TranslatingMethod(ImageMethod):
    """What methods of task `translation` share: no labels, all domains alike, judges in tests.

    Args:
        model: The network, a translator.
        task: Translation.
        roles: Source and target domains.
        **options: See `ImageMethod`.
    """

    labelled: str = ""
    unlabelled: str = "all"
    tasks: tuple[str, ...] = ("translation",)
    takes_shots: bool = False
    task: Translation

    def __init__(
        self,
        model: DomainModel,
        task: Translation,
        roles: Roles,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        task.domain_names = list(model.domain_names)
        self.judges: tuple[StyleJudge, StyleJudge] | None = None

    def asked(self, batch: Batch) -> Asked:
        """A domain of the batch for each of its images, at random; its own among them."""
        domain, model = batch["domain"], self.model
        present, order = domain.unique(), torch.arange(len(domain), device=domain.device)
        chosen = present[torch.randint(len(present), domain.shape, device=domain.device)]
        if not model.end_to_end:
            return Asked(chosen, order, None, None)
        drawn = torch.multinomial((chosen[:, None] == domain).float(), 1)[:, 0]
        image = torch.where(chosen == domain, order, drawn)
        own = model.embed(batch["image"], batch["attributes"] if model.reads_attributes else None)
        return Asked(chosen, image, own[image], own)

    def on_test_epoch_start(self) -> None:
        """Let judges of domains learn from the training images of all of them."""
        super().on_test_epoch_start()
        found = [(*self.task.describe(one["image"]), one["domain"]) for one in self.sweep("all")]
        style, everything, domain = (torch.cat(parts) for parts in zip(*found, strict=True))
        self.judges = StyleJudge(style, domain), StyleJudge(everything, domain)

    def _collect(self, batch: Batch, estimate: Estimate | None = None) -> None:
        assert self.judges is not None
        image, domain = batch["image"], batch["domain"]
        said = self.task.examine(self.deployed, image, domain, self.judges)
        self.keep(said, {**batch, "target": domain})

    def distances(self) -> dict[str, dict[str, float]]:
        """Of translated images, see `style_distances`."""
        return style_distances(self.predictions(), self.model.domain_names)


@register
class Stylize(TranslatingMethod):
    """One network that gives images the style of any domain, by moments of a frozen network.

    Of each batch every image is asked for the style of a domain at random. With f the feature maps
    of the frozen network, smoothed: ``loss = style_weight (style(y) + Σ over levels 0 to 2 of
    style(f(y))) + content_weight content(f(y), f(x)) at level 2 + variation_weight variation(y − x)
    + identity_weight |y − x| of images asked for their own domain``. The style, of colours and of
    feature maps, is that of the images of the domain in the batch; where norms take the embedding
    of an image, that of the image. Labels are not used, and all domains are seen alike.

    Args:
        model: The network, a translator.
        task: Translation.
        roles: Source and target domains.
        style_weight: Weight of the style loss, over images asked for another domain.
        content_weight: Weight of the content loss.
        variation_weight: Weight of the total variation of what is added to the images.
        identity_weight: Weight of the mean absolute change of images asked for their own domain.
        **options: See `TranslatingMethod`.

    Reference:
        Dumoulin et al., A Learned Representation for Artistic Style, ICLR 2017, arXiv:1610.07629;
        Wang et al., Rethinking and Improving the Robustness of Image Style Transfer, CVPR 2021,
        arXiv:2104.05623 (smoothed activations).
        Differs: moments instead of Gram matrices, styles are those of domains instead of one
        painting, and images keep their own.
    """

    def __init__(
        self,
        model: DomainModel,
        task: Translation,
        roles: Roles,
        *,
        style_weight: float = 10.0,
        content_weight: float = 1.0,
        variation_weight: float = 0.5,
        identity_weight: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.style_weight = style_weight
        self.content_weight = content_weight
        self.variation_weight = variation_weight
        self.identity_weight = identity_weight

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one mixed batch, each image asked for the domain of some image of it."""
        image, domain, asked = batch["image"], batch["domain"], self.asked(batch)
        made = self.model(image, asked.domain, embedding=asked.embedding)
        other = asked.domain != domain
        with torch.no_grad():
            real = self.task.levels(image)
        seen = self.task.levels(made)
        losses = {
            "content": self.content_weight * content_loss(seen[-1], real[-1]),
            "variation": self.variation_weight * variation_loss(made - image),
        }
        if bool(other.any()):
            pairs = zip([made, *seen], [image, *real], strict=True)
            wanted, owner = asked.domain, domain
            if self.model.end_to_end:
                wanted, owner = asked.image, torch.arange(len(image), device=image.device)
            styles = [style_loss(one[other], wanted[other], of, owner) for one, of in pairs]
            losses["style"] = self.style_weight * torch.stack(styles).sum()
        if not bool(other.all()):
            losses["identity"] = self.identity_weight * self.task.loss(made[~other], image[~other])
        return losses
