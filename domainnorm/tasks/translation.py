"""Translation: images in the style of another domain, without pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, Literal

import timm
import torch
from torch import Tensor
from torchmetrics import Metric

from domainnorm.backbones import DomainModel, create_network
from domainnorm.errors import ConversionError, DataError
from domainnorm.evaluation import StyleJudge, TranslationStore, similarity
from domainnorm.losses import smoothed
from domainnorm.registry import register
from domainnorm.tasks.base import Task
from domainnorm.tasks.translator import create_translator, in_styles, shares_of_white

_LEVELS = 3  # of the frozen network that losses compare
_DEEPER = slice(_LEVELS, None)


@contextmanager
def _float32() -> Iterator[None]:
    """New parameters are float32, within the steps of a training in half precision too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@register
class Translation(Task):
    """Images in the style of another domain, without pairs: scored by a judge of styles and SSIM.

    ``model(image, domain)`` gives images in the style of ``domain``. The network is a small one of
    its own, see `domainnorm.tasks.translator`. The recipe's backbone is the frozen network that
    compares images: losses see its first three levels of feature maps. Tests look at deeper ones,
    averaged over the image, twice: those of the same architecture with random weights, which no
    loss has seen, for style and distances; and those of the network itself, which see what is shown
    as well. It needs no labels.

    Args:
        class_names: Those of the dataset; not used.
        width: Channels of the network at full size.
        stride: By how much it makes images smaller inside, 2 or 4; 2 keeps finer detail.
        blocks: Residual blocks; more of them see farther, and add more that is not there.
    """

    labels: str = "translation"
    metric: str = "style_accuracy"

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        width: int = 16,
        stride: Literal[2, 4] = 2,
        blocks: int = 1,
    ) -> None:
        super().__init__(class_names)
        self.width = width
        self.stride = stride
        self.blocks = blocks
        self.domain_names: list[str] | None = None
        self._frozen: dict[str, Any] = {}

    def create_model(self, name: str, norm: Any, domains: Sequence[str], **options: Any) -> Any:
        """See `create_translator`; pretrained weights are those of `look_through`."""
        own = {"width": self.width, "stride": self.stride, "blocks": self.blocks}
        return create_translator(name, norm, domains, **{**options, **own})

    def look_through(self, name: str, **options: Any) -> None:
        """See `Task`; it is read when it is first needed."""
        self._frozen = {"name": name, **options}

    def check_input(self, model: DomainModel, size: tuple[int, int]) -> None:
        """Refuse images whose smallest maps would be one element, which instance norms empty.

        Raises:
            DataError: Names the size and the smallest that works.
        """
        least = self.stride + 1
        if min(size) < least:
            raise DataError(
                f"data.image_size: {size[0]} × {size[1]} pixels, expected {least} or more for a "
                f"translator of task.stride {self.stride}"
            )

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean absolute difference of images (N, 3, H, W) and what they should be."""
        return (logits - target).abs().mean()

    def levels(self, image: Tensor) -> list[Tensor]:
        """Smoothed feature maps (N, C, h, w) of the first levels of the frozen network."""
        return [smoothed(maps) for maps in maps_of(self._networks[0], image, slice(_LEVELS))]

    def describe(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps of deeper levels averaged over the image, (N, F) each.

        Those of a network with random weights, for the style; of the frozen one, for all there is.
        """
        frozen, random = (
            torch.cat([maps.float().mean((2, 3)) for maps in maps_of(one, image, _DEEPER)], 1)
            for one in self._networks
        )
        return random, frozen

    @torch.no_grad()
    def examine(
        self,
        model: DomainModel,
        image: Tensor,
        domain: Tensor,
        judges: tuple[StyleJudge, StyleJudge],
    ) -> Tensor:
        """What `TranslationStore` takes: images in the style of every domain, and back again.

        Args:
            model: The network, in evaluation mode.
            image: (N, 3, H, W).
            domain: Their own domains (N,).
            judges: One for each of what `describe` says, fitted on real images.
        """
        said = []
        for label in range(model.num_domains):
            asked = torch.full_like(domain, label)
            own = (asked == domain)[:, None, None, None]
            made = in_styles(model, image, asked)
            back = torch.where(own, made, in_styles(model, made, domain))
            features = [
                judge.scaled(one)
                for judge, one in zip(
                    judges, self.describe(torch.where(own, image, made)), strict=True
                )
            ]
            columns = [judge(one)[:, None] for judge, one in zip(judges, features, strict=True)]
            shown = (shares_of_white(model, one) for one in (back, image))
            similar = similarity(*shown)[:, None].cpu()
            said.append(torch.cat([*columns, similar, features[0]], 1))
        return torch.stack(said, 1).to(image.device)

    @cached_property
    @_float32()
    def _networks(self) -> tuple[Any, Any]:
        """The frozen network, and one of the same architecture with random weights.

        In a tuple, so that they are no part of what is trained and stored.
        """
        given = dict(self._frozen)
        name = given.pop("name")
        build = partial(timm.create_model, num_classes=0)
        is_drawn = not (given.get("pretrained") or given.get("weights"))
        with torch.random.fork_rng(devices=[], enabled=is_drawn):
            if is_drawn:  # it is not stored, and has to be the same when the run is tested again
                torch.manual_seed(1)
            network: Any = create_network(name, build, **given)
        count = len(getattr(network, "feature_info", ()))
        if count <= _LEVELS or not hasattr(network, "forward_intermediates"):
            raise ConversionError(
                f"backbone '{name}': {count} levels of feature maps, and translation compares "
                f"images by {_LEVELS} and judges them by deeper ones; take a network with more, "
                "such as tf_efficientnet_lite0"
            )
        options = {key: given[key] for key in given.keys() - {"pretrained", "weights"}}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same for every run
            random: Any = create_network(name, build, **options)
        return tuple(one.eval().requires_grad_(False) for one in (network, random))

    def store(self) -> Metric:
        """Collects what became of each image."""
        return TranslationStore()

    def metric_options(self, bins: int = 15) -> dict[str, Any]:
        """The names of the domains."""
        return {"domain_names": self.domain_names}


def maps_of(network: Any, image: Tensor, levels: slice) -> list[Tensor]:
    """Feature maps of some levels of a timm network."""
    positions = list(range(len(network.feature_info))[levels])
    found: list[Tensor] = network.to(image.device).forward_intermediates(
        image.float(), indices=positions, intermediates_only=True, stop_early=True
    )
    return found
