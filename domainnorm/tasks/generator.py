"""Network that makes images from noise, by flow matching: velocities, and steps along them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.backbones import DomainModel, convert_norms, example_image
from domainnorm.tasks.translator import ImageNetwork, create_image_network

STRIDE = 4  # pixels of an image along one place of the smallest maps
GROUPS = 8  # of channels that are normalized together
_WAVES = 32  # frequencies that spell a time
_LONGEST = 1000.0  # of them, how often the slowest turns in that of the fastest


def create_generator(
    name: str,
    num_classes: int,
    norm: Any = None,
    domains: Sequence[str] = ("default",),
    *,
    width: int = 48,
    blocks: int = 2,
    where: str | Sequence[str] = "all",
    unseen: Any = "error",
    in_chans: int = 3,
    **options: Any,
) -> DomainModel:
    """Create a `Generator` and convert its norms; `generate` makes images of it.

    Args:
        name: A timm architecture whose normalization of images it takes; of its layers it has none.
        num_classes: K.
        norm: See `domainnorm.convert_norms`; None is ``cgn``.
        domains: Names of the domains.
        width: See `Generator`.
        blocks: See `Generator`.
        where: See `domainnorm.convert_norms`.
        unseen: See `domainnorm.DomainModel`.
        in_chans: Channels of images, 3 or 1.
        **options: Further ones of the architecture, pretrained weights among them, which say
            nothing of this network.

    Raises:
        UnknownNameError: No such architecture; the message gives the nearest.
        ConversionError: See `domainnorm.convert_norms`.
    """

    def build(config: dict[str, Any]) -> nn.Module:
        return Generator(width, blocks, num_classes, config)

    made = create_image_network(name, build, in_chans)
    example = example_image(made)
    return convert_norms(made, norm or "cgn", domains, where=where, example=example, unseen=unseen)


class Generator(ImageNetwork):
    """The velocity of images on their way from noise, by time and class.

    A small U-Net over blocks of 2 × 2 pixels, whose places are halved once: ``v = U(x, t, class)``.
    Time and class add a scale and shift in each residual block, the domain comes through the norms.
    The last layer starts at zero.

    Args:
        width: Channels C at half the size of the image, a multiple of 8; doubled at a quarter.
        blocks: Residual blocks there.
        num_classes: K; a further row stands for no class.
        pretrained_cfg: How images are normalized: ``mean``, ``std``, ``input_size``, as timm's.

    Shape:
        - image: (N, 3, H, W) from −1, black, to 1, white, with noise; or (N, 1, H, W)
        - time: (N,), 0 for noise and 1 for images; 0 when None
        - label: (N,), −1 for no class; none when None
        - output: as image

    Reference:
        Ronneberger et al., MICCAI 2015, arXiv:1505.04597 (U-Net); Dhariwal and Nichol, NeurIPS
        2021, arXiv:2105.05233 (scale and shift from time and class in each block).
        Differs: two sizes of maps, no attention, and norms are those of the domain.
    """

    def __init__(
        self, width: int, blocks: int, num_classes: int, pretrained_cfg: dict[str, Any]
    ) -> None:
        super().__init__(pretrained_cfg)
        channels, size = self.channels, 4 * width
        self.time = nn.Sequential(nn.Linear(2 * _WAVES, size), nn.SiLU(), nn.Linear(size, size))
        self.label = nn.Embedding(num_classes + 1, size)
        self.stem = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.before = _Block(width, width, size)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(_Block(2 * width, 2 * width, size) for _ in range(blocks))
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.after = _Block(2 * width, width, size)
        self.last = nn.Conv2d(width, 4 * channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, image: Tensor, time: Tensor | None = None, label: Tensor | None = None
    ) -> Tensor:
        """The velocities."""
        if time is None:
            time = image.new_zeros(len(image))
        if label is None:
            label = torch.full((len(image),), -1, device=image.device)
        image = image.to(self.stem.weight.dtype)
        rows = torch.where(label < 0, self.label.num_embeddings - 1, label)
        given = F.silu(self.time(_waves(time).to(image.dtype)) + self.label(rows))
        seen = self.before(self.stem(F.pixel_unshuffle(image, 2)), given)
        made = self.down(seen)
        for block in self.blocks:
            made = block(made, given)
        made = self.up(F.interpolate(made, scale_factor=2.0))
        made = self.after(torch.cat([made, seen], 1), given)
        return F.pixel_shuffle(self.last(made), 2)


class _Block(nn.Module):
    """Two convolutions behind norms, beside the identity."""

    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(GROUPS, channels)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.given = nn.Linear(size, 2 * width)
        self.second_norm = nn.GroupNorm(GROUPS, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        same = channels == width
        self.beside = nn.Identity() if same else nn.Conv2d(channels, width, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, maps: Tensor, given: Tensor) -> Tensor:
        """(N, channels, h, w) and what is known of time and class, (N, size), to (N, width, h, w).

        The norm of the domain comes first, then the scale and shift of time and class.
        """
        scale, shift = self.given(given)[:, :, None, None].chunk(2, 1)
        inner = self.second_norm(self.first(F.silu(self.first_norm(maps))))
        output: Tensor = self.beside(maps) + self.second(F.silu(inner * (1 + scale) + shift))
        return output


def _waves(time: Tensor) -> Tensor:
    """Cosines and sines of times (N,), (N, 2 · 32)."""
    rate = torch.exp(torch.linspace(0, -math.log(_LONGEST), _WAVES, device=time.device))
    angle = _LONGEST * time.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], 1)


def velocity(
    model: DomainModel, image: Tensor, time: Tensor, label: Tensor, **given: Any
) -> Tensor:
    """Velocities (N, C, H, W) of images on their way.

    Args:
        model: What `create_generator` returns.
        image: See `Generator`.
        time: (N,).
        label: (N,), −1 for no class.
        **given: ``domain``, ``weights`` or ``embedding``, see `domainnorm.DomainModel`.
    """
    with model.condition(image, **given) as network:
        found: Tensor = network(image, time, label)
    return found


@torch.no_grad()
def generate(
    model: DomainModel,
    noise: Tensor,
    label: Tensor,
    *,
    steps: int = 10,
    guidance: float = 1.0,
    **given: Any,
) -> Tensor:
    """Images (N, C, H, W) from 0, black, to 1, white, made of noise.

    ``x ← x + v(x + v(x, t) / (2 S), t + 1 / (2 S)) / S`` for ``t = 0, 1 / S, …``, S steps
    (midpoints). With a guidance g, ``v = v_none + g (v_class − v_none)`` for images of a class.

    Args:
        model: What `create_generator` returns, in evaluation mode.
        noise: (N, C, H, W), standard normal.
        label: (N,), −1 for no class.
        steps: S; each asks the network twice, four times with guidance.
        guidance: g; 1 for the class alone, more for images that show it more clearly, all alike.
        **given: See `velocity`.
    """
    image, none = noise, torch.full_like(label, -1)

    def rate(image: Tensor, time: float) -> Tensor:
        times = torch.full((len(image),), time, device=image.device)
        found = velocity(model, image, times, label, **given)
        if guidance != 1:
            without = velocity(model, image, times, none, **given)
            found = without + guidance * (found - without)
        return found

    for step in range(steps):
        half = image + rate(image, step / steps) / (2 * steps)
        image = image + rate(half, (step + 0.5) / steps) / steps
    return (image.float() / 2 + 0.5).clamp(0, 1)


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Noise (N, *shape), each image's by a seed of its own, so that batches do not matter."""
    return torch.stack(
        [torch.randn(*shape, generator=torch.Generator().manual_seed(one)) for one in seeds]
    )
