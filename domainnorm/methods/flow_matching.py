"""Images from noise along straight lines."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.condition import Estimate
from domainnorm.evaluation import ClassJudge, StyleJudge, generation_distances, small
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.supervised import ImageMethod
from domainnorm.registry import register
from domainnorm.tasks import Generation
from domainnorm.tasks.generation import Judges
from domainnorm.tasks.generator import velocity
from domainnorm.tasks.translator import shares_of_white

_MOST = 10_000  # training images of a domain, roughly, that judges and distances look at


@register
class FlowMatching(ImageMethod):
    """A network of the velocities that lead from noise to images of a class and a domain.

    With an image ``x₁`` from −1 to 1, noise ``x₀`` and a time ``t`` in [0, 1), both drawn anew:
    ``loss = mean |v((1 − t) x₀ + t x₁, t, class, domain) − (x₁ − x₀)|²``. Images of targets are
    learned from without their class, those of sources lose it at random; so a class can be asked
    for in a domain that has no labels.

    Args:
        model: The network, a generator.
        task: Generation.
        roles: Source and target domains.
        dropout: Share of the images that lose their class, in [0, 1); for ``task.guidance``.
        **options: See `ImageMethod`.

    Reference:
        Lipman et al., Flow Matching for Generative Modeling, ICLR 2023, arXiv:2210.02747, sec. 4.1
        (with σ_min = 0); Liu et al., Flow Straight and Fast, ICLR 2023, arXiv:2209.03003, eq. 1;
        Ho and Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598 (no class).
        Differs: the domain comes through conditional norms, and domains without labels take part.
    """

    labelled: str = "source"
    unlabelled: str = "target"
    without_target: bool = True
    tasks: tuple[str, ...] = ("generation",)
    task: Generation

    def __init__(
        self,
        model: DomainModel,
        task: Generation,
        roles: Roles,
        *,
        dropout: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.dropout = dropout
        self.judges: Judges | None = None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of one mixed batch, of which every image counts."""
        return {"flow": self._loss(self.model, batch)}

    def _loss(self, model: DomainModel, batch: Batch) -> Tensor:
        image = 2 * shares_of_white(model, batch["image"]) - 1
        noise, time = torch.randn_like(image), torch.rand(len(image), device=image.device)
        share = time[:, None, None, None]
        label = batch["target"]
        if model.training:
            label = label.masked_fill(torch.rand_like(time) < self.dropout, -1)
        given = {"domain": batch["domain"], "embedding": model.embedding_of(batch)}
        found = velocity(model, (1 - share) * noise + share * image, time, label, **given)
        return self.task.loss(found, image - noise)

    def on_validation_epoch_start(self) -> None:
        """There is nothing to collect: images take too long to make after every epoch."""

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the loss of the deployed model, with the same noise after every epoch."""
        batch = self._shared(self._completed(batch, training=False))
        with torch.random.fork_rng():
            torch.manual_seed(batch_idx)
            loss = self._loss(self.deployed, batch)
        name = f"val/{self.eval_domains[dataloader_idx]}/flow"
        self.log(name, loss, add_dataloader_idx=False, batch_size=len(batch["image"]))

    def on_validation_epoch_end(self) -> None:
        """There is no metric."""

    def on_test_epoch_start(self) -> None:
        """Let judges learn from real training images of all domains, with their labels.

        Nothing that is trained sees these labels.
        """
        super().on_test_epoch_start()
        model, found = self.deployed, []
        for name in self.roles.all:
            loader = self.datamodule.evaluation_dataloader(name, "train", whole=True)
            every = slice(None, None, math.ceil(len(loader.dataset) / _MOST))
            for batch in map(self.ready, loader):
                shares = shares_of_white(model, batch["image"][every])
                features = self.task.describe(model, shares)
                label, domain = batch["target"][every], batch["domain"][every]
                found.append((small(shares), label, domain, features))
        images, target, domain, features = (torch.cat(one) for one in zip(*found, strict=True))
        real = {label: images[domain == label].flatten(1) for label in set(domain.tolist())}
        classes = ClassJudge(images, target, len(self.task.class_names))
        self.judges = Judges(classes, StyleJudge(features, domain) if len(real) > 1 else None, real)

    def _collect(self, batch: Batch, estimate: Estimate | None = None) -> None:
        assert self.judges is not None
        model, index, target = self.deployed, batch["index"], batch["target"]
        asked = torch.where(target < 0, index % len(self.task.class_names), target)
        made = self.task.made(
            model,
            asked,
            index.tolist(),
            shape=batch["image"].shape[1:],
            domain=self._shared(batch)["domain"],
            embedding=model.embedding_of(batch),
        )
        said = self.task.examine(model, made, batch, self.judges)
        told = torch.stack([batch["domain"], asked, target], 1)
        self.keep(said, {**batch, "target": told})

    def distances(self) -> dict[str, dict[str, float]]:
        """Of generated images, see `generation_distances`."""
        return generation_distances(self.predictions())
