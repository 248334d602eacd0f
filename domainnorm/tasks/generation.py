"""Generation: images from noise, a class and a domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import timm
import torch
from torch import Tensor
from torchmetrics import Metric

from domainnorm.backbones import DomainModel, create_network
from domainnorm.errors import DataError, DomainNormError
from domainnorm.evaluation import ClassJudge, GenerationStore, StyleJudge, nearest
from domainnorm.registry import register
from domainnorm.tasks.base import Task
from domainnorm.tasks.generator import GROUPS, STRIDE, create_generator, generate, seeded_noise
from domainnorm.tasks.translation import maps_of
from domainnorm.tasks.translator import shares_of_white


@dataclass(frozen=True)
class Judges:
    """What tells of what generated images look, learned from real ones.

    Args:
        classes: Of classes.
        domains: Of domains; None where there is only one.
        real: Flat training images of each domain by its label, see `nearest`.
    """

    classes: ClassJudge
    domains: StyleJudge | None
    real: Mapping[int, Tensor]


@register
class Generation(Task):
    """Images from noise, a class and a domain, by a small network: scored by judges of real images.

    The network is a small one of its own, see `domainnorm.tasks.generator`, which says in what
    direction an image is to be found. Of the recipe's backbone it takes the normalization of
    images; with random weights that architecture tells domains apart in tests, and images by their
    features. Classes are those of the dataset; images whose label may not be seen have none.

    Args:
        class_names: Names of the K classes.
        width: Channels of the network at half the size of the image, a multiple of 8.
        blocks: Residual blocks at a quarter of that size.
        steps: From noise to an image, in tests and in ``domainnorm generate``.
        guidance: How much more of the class an image has to show than one of no class, 1 or more: 1
            for the class as it is.

    Raises:
        DomainNormError: A width that is no multiple of 8, or a guidance below 1.
    """

    labels: str = "generation"
    metric: str = "class_accuracy"

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        width: int = 48,
        blocks: int = 2,
        steps: int = 10,
        guidance: float = 1.0,
    ) -> None:
        super().__init__(class_names)
        if width % GROUPS:
            raise DomainNormError(f"task.width: {width}, expected a multiple of {GROUPS}")
        if not guidance >= 1:
            raise DomainNormError(f"task.guidance: {guidance}, expected 1 or more")
        self.width = width
        self.blocks = blocks
        self.steps = steps
        self.guidance = guidance
        self._seen: dict[str, Any] = {}

    def create_model(self, name: str, norm: Any, domains: Sequence[str], **options: Any) -> Any:
        """See `create_generator`; there are no pretrained weights."""
        own = {"width": self.width, "blocks": self.blocks}
        return create_generator(name, len(self.class_names), norm, domains, **{**options, **own})

    def look_through(self, name: str, **options: Any) -> None:
        """See `Task`; it is made when it is first needed."""
        self._seen = {"name": name, **options}

    def check_input(self, model: DomainModel, size: tuple[int, int]) -> None:
        """Refuse images that the network cannot halve twice.

        Raises:
            DataError: Names the size.
        """
        if any(side % STRIDE or side < 2 * STRIDE for side in size):
            raise DataError(
                f"data.image_size: {size[0]} × {size[1]} pixels, expected multiples of {STRIDE}, "
                f"{2 * STRIDE} or more"
            )

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean square difference of velocities (N, C, H, W) and what they should be."""
        return (logits - target).square().mean()

    def made(self, model: DomainModel, label: Tensor, seeds: Sequence[int], **given: Any) -> Tensor:
        """Images of classes (N,), −1 for none, 0 to 1, each from the noise of a seed.

        Args:
            model: The network, in evaluation mode.
            label: (N,).
            seeds: N numbers.
            **given: ``shape`` (C, H, W) of an image, and ``domain``, ``weights`` or ``embedding``.
        """
        noise = seeded_noise(seeds, given.pop("shape")).to(label.device)
        options = {"steps": self.steps, "guidance": self.guidance, **given}
        return generate(model, noise, label, **options)

    def describe(self, model: DomainModel, shares: Tensor) -> Tensor:
        """Feature maps of all levels of a random network, averaged over the image, (N, F).

        Args:
            model: The generator, for its normalization.
            shares: Images (N, C, H, W), 0 to 1.
        """
        network: Any = model.backbone
        image = network.low + shares * (network.high - network.low)
        maps = maps_of(self._random[0], image, slice(None))
        return torch.cat([one.float().mean((2, 3)) for one in maps], 1)

    @torch.no_grad()
    def examine(
        self, model: DomainModel, made: Tensor, batch: Mapping[str, Tensor], judges: Judges
    ) -> Tensor:
        """What `GenerationStore` takes: generated images (N, C, H, W) beside those of a batch.

        Args:
            model: The network.
            made: 0 to 1, one for each image.
            batch: ``image``, normalized, and ``domain``.
            judges: Learned from real training images.
        """
        said, domain = [], batch["domain"]
        for shares in (made, shares_of_white(model, batch["image"])):
            features = self.describe(model, shares)
            looks = torch.full_like(domain, -1)
            if judges.domains is not None:
                features = judges.domains.scaled(features)
                looks = judges.domains(features).to(domain)
            away = shares.new_zeros(len(shares))
            for label, real in judges.real.items():
                own = domain == label
                away[own] = nearest(shares[own], real)
            columns = torch.stack([judges.classes(shares), looks, away], 1)
            said.append(torch.cat([columns, features.to(columns)], 1))
        return torch.stack(said, 1)

    @cached_property
    def _random(self) -> tuple[Any]:
        """The backbone's architecture with random weights, the same for every run.

        In a tuple, so that it is no part of what is trained and stored.
        """
        given = {k: of for k, of in self._seen.items() if k not in ("pretrained", "weights")}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            build = partial(timm.create_model, num_classes=0)
            network: Any = create_network(given.pop("name"), build, **given)
        return (network.eval().requires_grad_(False),)

    def store(self) -> Metric:
        """Collects what images show."""
        return GenerationStore()

    def metric_options(self, bins: int = 15) -> dict[str, Any]:
        """The names of the classes."""
        return {"class_names": self.class_names}
