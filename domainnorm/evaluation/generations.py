"""Generated images, judged: whose class and domain they show, beside what real images show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.evaluation.evaluated import (
    Evaluated,
    WeightedMetrics,
    ratio,
)
from domainnorm.evaluation.translations import sliced_wasserstein

_SIDE = 32  # pixels along a side of what judges and distances look at
_PASSES, _BATCH, _RATE = 20, 64, 3e-3
_FEWEST, _MOST = 50, 600  # steps
_SHIFT = 2  # pixels by which images are moved while the judge learns


class ClassJudge:
    """Tells what class an image shows: a small network that learns from real images, by a seed.

    Three convolutions over images at 32 × 32 pixels that are moved by up to 2 pixels, and at most
    600 batches of 64 images.

    Args:
        image: Real training images, (M, C, H, W), 0 to 1.
        label: Their classes, (M,); images of −1 are left out.
        num_classes: K.
    """

    def __init__(self, image: Tensor, label: Tensor, num_classes: int) -> None:
        image, label = small(image)[label >= 0], label[label >= 0]
        # It has a generator of its own, so that a test changes nothing that comes after it.
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.inference_mode(False):
            torch.manual_seed(0)
            self._network = _network(image.shape[1], num_classes).to(image.device)
            steps = min(max(_PASSES * len(image) // _BATCH, _FEWEST), _MOST)
            optimizer = torch.optim.AdamW(self._network.parameters(), _RATE)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, steps)
            for _ in range(steps):
                drawn = torch.randint(len(image), (_BATCH,))
                moved = F.pad(image[drawn].clone(), (_SHIFT,) * 4, mode="replicate")
                top, left = torch.randint(2 * _SHIFT + 1, (2,)).tolist()
                seen = moved[..., top : top + _SIDE, left : left + _SIDE]
                optimizer.zero_grad()
                loss: Any = F.cross_entropy(self._network(seen), label[drawn].clone())
                loss.backward()
                optimizer.step()
                schedule.step()
        self._network.eval()

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """The class that each of (N, C, H, W), 0 to 1, is taken for, (N,)."""
        found: Tensor = self._network(small(image)).argmax(1)
        return found


def _network(channels: int, num_classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (16, 32, 64):
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, num_classes))


def small(image: Tensor) -> Tensor:
    """Images (N, C, H, W) at the size that they are judged at, by averages."""
    return F.adaptive_avg_pool2d(image.float(), _SIDE)


def nearest(image: Tensor, real: Tensor) -> Tensor:
    """Distance of each image to the nearest real one, (N,): root of the mean square of pixels.

    Args:
        image: (N, C, H, W), 0 to 1.
        real: (M, F), flat images of `small`.
    """
    flat = small(image).flatten(1)
    found: Tensor = torch.cdist(flat, real).amin(1) / flat.shape[1] ** 0.5
    return found


@dataclass(frozen=True)
class Generations(Evaluated):
    """What N images generated for a domain show, each beside a real test image, on the CPU.

    Each is asked for the class of its test image, or for one by its position where that has none.

    Args:
        domain: The domain asked for, (N,), int64.
        asked: The class asked for, (N,), int64.
        target: The class of the real image, −1 unknown, (N,), int64.
        judged: Class and domain that the generated and then the real image are taken for, (N, 2,
            2), int64; the domain is −1 where there is only one.
        nearest: Distance of the generated and the real image to the nearest training image of the
            domain, (N, 2), float32.
        features: Of both, (N, 2, F), float32.
        index: Position of each test image in its dataset (N,), int64.

    Raises:
        EvaluationError: A wrong shape, dtype or device.
    """

    domain: Tensor
    asked: Tensor
    target: Tensor
    judged: Tensor
    nearest: Tensor
    features: Tensor
    index: Tensor
    kind: ClassVar[str] = "generation"

    def __post_init__(self) -> None:
        count = len(self.nearest)
        self._check("nearest", (count, 2), torch.float32)
        self._check("judged", (count, 2, 2), torch.int64, " to match nearest")
        self._check("features", (count, 2, self.features.shape[-1]), torch.float32)
        for name in ("domain", "asked", "target", "index"):
            self._check(name, (count,), torch.int64, " to match nearest")

    @property
    def has_label(self) -> Tensor:
        """Every image was asked for something."""
        return torch.ones(len(self), dtype=torch.bool)

    def weighted(self, *, class_names: Sequence[str]) -> GenerationSums:
        """What metrics of generated images are computed from.

        Args:
            class_names: Names of the K classes.
        """
        known, right = self.target >= 0, self.judged[:, 0, 0] == self.asked
        asked = self.asked == torch.arange(len(class_names))[:, None]
        rows = [
            (self.judged[:, 1, 0] == self.target) & known,
            known,
            *(self.judged[..., 1] == self.domain[:, None]).T,
            *self.nearest.T,
            *(asked & right),
            *asked,
        ]
        sums = torch.stack([row.double() for row in rows])
        return GenerationSums(sums, bool((self.judged[..., 1] >= 0).all()), list(class_names))


@dataclass(frozen=True)
class GenerationSums(WeightedMetrics):
    """Sums of generated images, for weights to be applied.

    Args:
        sums: See `WeightedMetrics`. Rows: real images taken for their class; those that have one;
            generated and real ones taken for their domain; the distance of both; K of generated
            images taken for the class that they were asked for; K of all that were asked for it.
        several: Whether there are several domains to be taken for.
        class_names: Names of the K classes.
    """

    several: bool
    class_names: list[str]

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Weighted metrics for several weightings at once, see `WeightedMetrics`.

        Returns:
            Values (B,): ``class_accuracy``, the share of generated images taken for the class asked
            for, and ``class_accuracy/<class>`` of those asked for a class; ``look_accuracy``, the
            share taken for the domain, where there are several; ``nearest``, the mean distance to
            the nearest training image. The same of real test images ends with ``_real``;
            ``class_accuracy_real`` is of those with a label.
        """
        sums, total = self.sums @ weights, weights.sum(0)
        right, asked = sums[6:].chunk(2)
        found = {"class_accuracy": right.sum(0) / total}
        found["class_accuracy_real"] = ratio(sums[0], sums[1])
        if self.several:
            found |= {"look_accuracy": sums[2] / total, "look_accuracy_real": sums[3] / total}
        found |= {"nearest": sums[4] / total, "nearest_real": sums[5] / total}
        by_class = zip(self.class_names, ratio(right, asked), strict=True)
        return found | {f"class_accuracy/{name}": of for name, of in by_class}


def generation_distances(evaluated: Mapping[str, Evaluated]) -> dict[str, dict[str, float]]:
    """How far generated images are from real test images of their domain, by domain.

    ``distance`` is the sliced Wasserstein distance of their features, ``distance_halves`` that of
    one half of the real images to the other, of even and odd positions in the dataset.

    Args:
        evaluated: Domain -> `Generations` of it.
    """
    found = {}
    for name, one in evaluated.items():
        if isinstance(one, Generations):
            made, real = one.features.unbind(1)
            found[name] = {
                "distance": sliced_wasserstein(made, real),
                "distance_halves": sliced_wasserstein(real[::2], real[1::2]),
            }
    return found
