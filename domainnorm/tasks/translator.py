"""Network from images to images, with conditional instance norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from domainnorm.backbones import (
    DomainModel,
    convert_norms,
    create_network,
    example_image,
    tiled_inference,
)
from domainnorm.data import Preprocessing
from domainnorm.encoders.base import Attributes
from domainnorm.norms.statistics.instance import ThumbnailStatistics
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.slot import ConditionSlot

_SHARED = 96  # pixels of neighbouring tiles, at most half a tile: twice as far as outputs see


def create_translator(
    name: str,
    norm: Any = None,
    domains: Sequence[str] = ("default",),
    *,
    width: int = 16,
    stride: int = 2,
    blocks: int = 1,
    norms: bool = True,
    network: type[Translator] | None = None,
    where: str | Sequence[str] = "all",
    unseen: Any = "error",
    in_chans: int = 3,
    **options: Any,
) -> DomainModel:
    """Create a `Translator` and convert its norms: ``model(image, domain)`` translates images.

    Args:
        name: A timm architecture whose normalized images it takes and gives; of its layers it has
            none.
        norm: See `domainnorm.convert_norms`; None is ``cin``.
        domains: Names of the domains.
        width: Channels at full size.
        stride: See `Translator`.
        blocks: Residual blocks.
        norms: Whether there are any; without, every domain has the same network.
        network: Its class; None for `Translator`.
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
        return (network or Translator)(width, stride, blocks, config, norms=norms)

    made = create_image_network(name, build, in_chans)
    if not norms:
        model = DomainModel(made, domains, ConditionSlot(), [])
        model.unseen = unseen
        return model
    example = example_image(made)
    return convert_norms(made, norm, domains, where=where, example=example, unseen=unseen)


def create_image_network(
    name: str, build: Callable[[dict[str, Any]], nn.Module], in_chans: int
) -> nn.Module:
    """A network of its own that takes images as a timm architecture does.

    Args:
        name: The architecture.
        build: Takes its ``pretrained_cfg``, with ``in_chans`` in ``input_size``.
        in_chans: Channels of images, 3 or 1.

    Raises:
        UnknownNameError: No such architecture; the message gives the nearest.
    """

    def built(name: str, *, pretrained: bool) -> nn.Module:
        config = timm.get_pretrained_cfg(name)
        known = {} if config is None else config.to_dict()
        size = tuple(known.get("input_size", (3, 224, 224)))[1:]
        return build({**known, "input_size": (in_chans, *size)})

    return create_network(name, built)


class ImageNetwork(nn.Module):
    """Base of networks that give images back.

    Args:
        pretrained_cfg: How images are normalized: ``mean``, ``std``, ``input_size``, as timm's.

    Shape:
        ``low``, ``high``: black and white, (C, 1, 1), in a normalized image of C ``channels``.
    """

    low: Tensor
    high: Tensor

    def __init__(self, pretrained_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.pretrained_cfg = pretrained_cfg
        self.channels = int(pretrained_cfg["input_size"][0])
        mean, std = (torch.tensor(pretrained_cfg[key]) for key in ("mean", "std"))
        if self.channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        self.register_buffer("low", (-mean / std)[:, None, None], persistent=False)
        self.register_buffer("high", ((1 - mean) / std)[:, None, None], persistent=False)


class Translator(ImageNetwork):
    """Images to images of the same size: ``y = x + r(x)``, ``r`` an encoder and decoder.

    A first layer without a norm sees colours as they are; averages and convolutions halve the size,
    residual blocks follow, nearest neighbours and convolutions enlarge again: pixels stay where
    they are, and there are no checkerboards. A last part reads the result beside the first layer.
    Instance norms follow each layer in between. The last layer starts at zero, so that the
    untrained network gives back its input. Sizes that ``stride`` does not divide are padded at the
    right and bottom, and cut again.

    In training outputs are as they come; in evaluation those that no image has are clipped to black
    and white.

    Args:
        width: Channels C at full size, doubled where the size is halved.
        stride: 1, 2 or 4, by which the size is divided where it is smallest.
        blocks: Residual blocks there.
        pretrained_cfg: How images are normalized: ``mean``, ``std``, ``input_size``, as timm's.
        norms: Whether there are norms.

    Shape:
        - image: (N, 3, H, W) normalized, or (N, 1, H, W)
        - output: the same

    Reference:
        Dumoulin et al., A Learned Representation for Artistic Style, ICLR 2017, arXiv:1610.07629,
        appendix A (encoder, residual blocks, enlarged by nearest neighbours).
        Differs: the output is a change of the input, the first and last layers have no norm, and
        sizes are halved by averages, beside which strided convolutions are off by half a pixel.
    """

    def __init__(
        self,
        width: int,
        stride: int,
        blocks: int,
        pretrained_cfg: dict[str, Any],
        *,
        norms: bool = True,
    ) -> None:
        super().__init__(pretrained_cfg)
        self.stride = stride
        norm = _norm if norms else nn.Identity
        widths = [width, 2 * width, 4 * width][: 1 + stride // 2]
        self.stem = _conv(self.channels, width, 5)
        self.down = nn.Sequential(
            *(
                nn.Sequential(nn.AvgPool2d(2), _conv(one, 2 * one, 3), norm(2 * one), nn.ReLU())
                for one in widths[:-1]
            )
        )
        self.blocks = nn.Sequential(*(_Block(widths[-1], norm) for _ in range(blocks)))
        self.up = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Upsample(scale_factor=2), _conv(one, one // 2, 3), norm(one // 2), nn.ReLU()
                )
                for one in widths[:0:-1]
            )
        )
        self.mix = _conv(2 * width, width, 3)
        self.last = _conv(width, self.channels, 3)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        """The translated images."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        seen = F.relu(self.stem(padded))
        made = self.up(self.blocks(self.down(seen)))
        change = self.last(F.relu(self.mix(torch.cat([made, seen], 1))))
        output = image + change[..., :height, :width]
        return (
            output if self.training else torch.minimum(torch.maximum(output, self.low), self.high)
        )


def shares_of_white(model: DomainModel, image: Tensor) -> Tensor:
    """Values of normalized images from 0, black, to 1, white; those beyond are clipped.

    Args:
        model: A translator, for which they are normalized.
        image: (N, C, H, W).
    """
    network: Any = model.backbone
    shares: Tensor = (image.float() - network.low) / (network.high - network.low)
    return shares.clamp(0, 1)


def pixels_of(model: DomainModel, image: Tensor) -> NDArray[np.uint8]:
    """Normalized images (N, C, H, W) as RGB pixels (N, H, W, 3)."""
    return image_pixels(shares_of_white(model, image))


def image_pixels(shares: Tensor) -> NDArray[np.uint8]:
    """Images (N, C, H, W) from 0, black, to 1, white, as RGB pixels (N, H, W, 3)."""
    shares = shares.expand(-1, 3, -1, -1)
    return (255 * shares).round().byte().movedim(1, -1).cpu().numpy()


def style_of_domains(model: DomainModel, weights: Tensor) -> dict[str, Tensor]:
    """What a translator is given for the styles of domains, or of mixtures of them.

    Args:
        model: The translator.
        weights: (N, D).

    Returns:
        ``weights``; where norms take the embedding of an image, also ``embedding``, (N, E): means
        over the images of each domain, mixed.
    """
    given = {"weights": weights}
    if model.encoder is not None and model.end_to_end:
        given["embedding"] = weights @ model.encoder.gaussians.mean
    return given


def row_of(model: DomainModel, domain: str) -> Tensor:
    """Weights (1, D) of one domain alone, by its name."""
    return torch.eye(model.num_domains)[[model.domain_names.index(domain)]]


def style_of_image(
    model: DomainModel, image: Tensor, attributes: Attributes | None = None
) -> dict[str, Tensor]:
    """The same for the styles of images (N, C, H, W), or by their attributes."""
    estimate = model.estimate(image, attributes)
    return {"weights": estimate.weights, "embedding": estimate.embedding}


def in_styles(model: DomainModel, image: Tensor, domain: Tensor) -> Tensor:
    """Images (N, C, H, W) in the style of a domain each, of labels (N,)."""
    if not model.end_to_end:
        made: Tensor = model(image, domain)
        return made
    weights = F.one_hot(domain, model.num_domains).to(image.dtype)
    return model(image, **style_of_domains(model, weights))  # type: ignore[no-any-return]


class PixelTranslator:
    """Pixels of images of any size in other styles, by a translator that sees them at its own size.

    The network says what changes there; the change is enlarged and added to the pixels, so that
    what it does not touch stays as sharp as it was. Or it sees tiles of the pixels themselves.

    Args:
        model: The translator, in evaluation mode.
        preprocessing: What fits images to it.
        tile: Side of tiles; None for whole images.

    Attributes:
        cut: Whether an image was larger than a tile.
    """

    def __init__(
        self, model: DomainModel, preprocessing: Preprocessing, tile: int | None = None
    ) -> None:
        self.model = model
        self.preprocessing = preprocessing
        self.tile, self.cut = tile, False
        network: Any = model.backbone
        self.grey = len(network.low) == 1
        self.least = network.stride
        self.unit = 255 / (network.high - network.low)  # of a pixel, in a normalized image

    def tensor(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels (h, w, 3) as the translator takes them, (1, C, H, W)."""
        return self.preprocessing.whole()(pixels)[None]

    def __call__(self, pixels: NDArray[np.uint8], styles: dict[str, Tensor]) -> NDArray[np.uint8]:
        """Pixels (h, w, 3) in each of M styles, see `style_of_domains`: (M, h, w, 3)."""
        own = pixels
        if self.grey:
            own = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
        found = []
        for change in self.changes(pixels, styles):
            shown = np.clip(np.rint(own + change), 0, 255).astype(np.uint8)
            found.append(np.repeat(shown, 3, 2) if self.grey else shown)
        return np.stack(found)

    @torch.inference_mode()
    def changes(
        self, pixels: NDArray[np.uint8], styles: dict[str, Tensor]
    ) -> Iterator[NDArray[np.float32]]:
        """What is added to pixels (h, w, 3) for each style: (h, w, C), of values to 255."""
        # Of a few pixels alone, the smallest maps would be one element, which has no moments.
        whole = self.tile is None or max(pixels.shape[:2]) <= self.least
        self.cut |= self.tile is not None and max(pixels.shape[:2]) > self.tile
        image = self.tensor(pixels) if whole else self._as_it_is(pixels)
        for number in range(len(styles["weights"])):
            style = {name: rows[number, None] for name, rows in styles.items()}
            tile = None if whole else self.tile
            change = (in_tiles(self.model, image, tile, style) - image)[0] * self.unit
            if whole:
                change, _ = self.preprocessing.restored(change, *pixels.shape[:2])
            yield change.movedim(0, -1).numpy()

    def _as_it_is(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels (h, w, 3) at their own size, (1, C, h, w)."""
        height, width = pixels.shape[:2]
        made = replace(self.preprocessing, height=height, width=width, crop=None)
        return made(pixels)[None]


def sees_tiles(model: DomainModel) -> bool:
    """Whether tiles of an image have moments of their own, so that they may differ in colour."""
    kinds = [norm.statistics for norm in model.norms()]
    return any(not isinstance(one, (RunningMoments, ThumbnailStatistics)) for one in kinds)


def in_tiles(
    model: DomainModel, image: Tensor, tile: int | None, given: Mapping[str, Any]
) -> Tensor:
    """What a network makes of an image (1, C, H, W), seen whole or in tiles of a side.

    Args:
        model: The network.
        image: (1, C, H, W).
        tile: Side of the tiles; None for none.
        given: ``domain``, or ``weights`` (1, D), and ``embedding`` (1, E) or none.
    """
    if tile is None:
        return model(image, **given)  # type: ignore[no-any-return]
    asked = {"domain": given.get("weights", given.get("domain")), **given}
    asked.pop("weights", None)
    return tiled_inference(
        model,
        image,
        tile=tile,
        overlap=min(tile // 2, _SHARED),
        domain=asked,
        batch_size=1,
        progress=False,
    )


class _Block(nn.Module):
    """Two convolutions with norms, beside the identity."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first = nn.Sequential(_conv(width, width, 3), norm(width), nn.ReLU())
        self.second = nn.Sequential(_conv(width, width, 3), norm(width))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        output: Tensor = maps + self.second(self.first(maps))
        return output


def _conv(channels: int, width: int, side: int) -> nn.Conv2d:
    # Zeros around an image would be a frame of another colour.
    return nn.Conv2d(channels, width, side, padding=side // 2, padding_mode="replicate")


def _norm(width: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(width, affine=True)
