"""Dense outputs of images that are larger than memory allows: tile by tile, without seams."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor

from domainnorm.backbones.conversion.norm_layers import evaluating
from domainnorm.backbones.model import DomainModel
from domainnorm.condition import Domain, RecordedMoments
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms.kernels.per_sample import accumulate_dtype
from domainnorm.norms.statistics.instance import ThumbnailStatistics
from domainnorm.ranges import ESTIMATED
from domainnorm.terminal import create_console


def tiled_inference(
    model: DomainModel,
    image: Tensor,
    *,
    tile: int | tuple[int, int],
    overlap: int | tuple[int, int],
    thumbnail_size: int | None = None,
    domain: Domain | Mapping[str, Tensor | None] = None,
    batch_size: int = 4,
    progress: bool = True,
) -> Tensor:
    """Run a dense model on tiles of each image and blend them over their overlap.

    Each output pixel is the mean of the tiles that cover it, weighted by windows that fall off
    towards the edge of a tile as a squared cosine and sum to one. A model with ``thumbnail``
    statistics sees a small copy of each image once, whose moments normalize all of its tiles.
    Memory: the output, and ``batch_size`` tiles at a time. Evaluation mode, no gradients.

    Args:
        model: Its output has the size of its input, (N, K, H, W).
        image: (N, C, H, W).
        tile: Side of a tile, or (height, width), in pixels; one tile covers a shorter side.
        overlap: Pixels that neighbouring tiles share, in ``0..tile-1``. Twice the radius of the
            receptive field hides the padding at the edges of tiles.
        thumbnail_size: Longer side of the small copy, in pixels; None: that of a tile.
        domain: See `DomainModel.forward`; or soft domain weights, (N, D); or either beside the
            embedding of each image, ``{"domain": (N,), "embedding": (N, E)}``. Without an
            embedding, an encoder end to end sees the whole image.
        batch_size: Tiles at a time.
        progress: Show a progress bar on standard error, if that is a terminal.

    Returns:
        (N, K, H, W), on the device of the image.

    Raises:
        DomainNormError: Sizes that do not fit, or a model whose output is of another size.
        ConditionError: See `DomainModel.forward`.
    """
    embedding: Tensor | None = None
    if isinstance(domain, Mapping):
        known = domain
        domain, embedding = known.get("domain"), known.get("embedding")
    sides = (tile, tile) if isinstance(tile, int) else tile
    shared = (overlap, overlap) if isinstance(overlap, int) else overlap
    _check(image, sides, shared, thumbnail_size, batch_size)
    _check_rows({"domain": domain, "embedding": embedding}, len(image))
    height, width = image.shape[-2:]
    rows = _windows(height, sides[0], shared[0], image)
    columns = _windows(width, sides[1], shared[1], image)
    recording = ThumbnailStatistics in {type(norm.statistics) for norm in model.norms()}
    reduced = recording or model.unseen == "nearest"
    output: Tensor | None = None
    places = [(row, column) for row in rows for column in columns]
    batches = [places[first : first + batch_size] for first in range(0, len(places), batch_size)]
    console = create_console(error=True)
    bar = Progress(console=console, disable=not (progress and console.is_terminal))
    with evaluating(model), bar:
        task = bar.add_task("tiles", total=len(image) * len(batches))
        for n in range(len(image)):
            one = image[n : n + 1]
            small = _thumbnail(one, thumbnail_size or max(sides)) if reduced else one
            given = _of_image(model, one, small, _of_sample(domain, n))
            if embedding is not None:
                given["embedding"] = embedding[n : n + 1]
            elif model.end_to_end:  # of the whole image, not of each tile
                given["embedding"] = model.embed(one)
            recorded = model.record_moments(small, **given) if recording else None
            for batch in batches:
                predicted = _predict(model, image[n], batch, given, recorded)
                if output is None:
                    output = predicted.new_zeros(len(image), predicted.shape[1], height, width)
                _add(output[n], batch, predicted)
                bar.advance(task)
    assert output is not None  # there is at least one image, and one tile
    return output.to(image.device)


Window = tuple[int, Tensor]


def _add(output: Tensor, places: list[tuple[Window, Window]], predicted: Tensor) -> None:
    """Add weighted tiles (B, K, h, w) to the output (K, H, W) of their image."""
    for ((top, vertical), (left, horizontal)), values in zip(places, predicted, strict=True):
        part = output[:, top : top + len(vertical), left : left + len(horizontal)]
        part += values * vertical[:, None].to(values) * horizontal.to(values)


def _windows(size: int, tile: int, overlap: int, image: Tensor) -> list[Window]:
    """First pixel and weights of each tile along one axis; weights of all tiles sum to one."""
    tile = min(tile, size)
    starts = [*range(0, size - tile, max(tile - overlap, 1)), size - tile]
    ramp = torch.ones(tile, dtype=torch.float64)
    rising = torch.arange(min(overlap, tile), dtype=torch.float64) + 0.5
    rising = torch.sin(rising / max(overlap, 1) * (math.pi / 2)).square()
    ramp[: len(rising)] *= rising
    ramp[tile - len(rising) :] *= rising.flip(0)
    covered = torch.zeros(size, dtype=torch.float64)
    for start in starts:
        covered[start : start + tile] += ramp
    return [(start, (ramp / covered[start : start + tile]).to(image.device)) for start in starts]


def _predict(
    model: DomainModel,
    image: Tensor,
    places: list[tuple[Window, Window]],
    given: dict[str, Any],
    thumbnail: RecordedMoments | None,
) -> Tensor:
    """Outputs (B, K, h, w) for the tiles of one image (C, H, W)."""
    tiles = torch.stack(
        [
            image[:, top : top + len(vertical), left : left + len(horizontal)]
            for (top, vertical), (left, horizontal) in places
        ]
    )
    for name, value in given.items():
        if isinstance(value, Tensor):
            given = {**given, name: value.expand(len(tiles), *value.shape[1:])}
    predicted: Any = model(tiles, thumbnail=thumbnail, **given)
    if not isinstance(predicted, Tensor) or predicted.shape[2:] != tiles.shape[2:]:
        found = getattr(predicted, "shape", type(predicted).__name__)
        raise DomainNormError(
            f"tiled_inference: the model gives {found} for tiles {tiles.shape}, expected "
            "outputs of the size of the input; use a segmentation network, upsampled to its input"
        )
    return predicted


def _of_image(model: DomainModel, image: Tensor, small: Tensor, domain: Domain) -> dict[str, Any]:
    """What all tiles of one image (1, C, H, W) are told of its domain."""
    if isinstance(domain, Tensor) and domain.ndim == 2:
        return {"weights": domain}
    if model.unseen == "nearest":
        return {"domain": model.nearest_domains(small, domain)}
    if model.unseen in ESTIMATED:
        return dict(model.resolve_domain(image, domain))
    return {"domain": domain}


def _of_sample(domain: Domain, n: int) -> Domain:
    """What is known of sample n: a label (1,), weights (1, D), or a name for all of its tiles."""
    if isinstance(domain, Tensor):
        return domain[n : n + 1]
    if domain is None or isinstance(domain, (str, int)):
        return domain
    return domain[n]


def _thumbnail(image: Tensor, size: int) -> Tensor:
    height, width = image.shape[-2:]
    longer = max(height, width)
    if longer <= size:
        return image
    shape = [max(1, round(side * size / longer)) for side in (height, width)]
    wide = image.to(accumulate_dtype(image))  # the kernel has no narrow form on a CPU
    small = F.interpolate(wide, shape, mode="bilinear", antialias=True, align_corners=False)
    return small.to(image.dtype)


def _check(
    image: Tensor,
    tile: tuple[int, int],
    overlap: tuple[int, int],
    thumbnail_size: int | None,
    batch_size: int,
) -> None:
    if image.ndim != 4 or not image.numel():
        raise DomainNormError(
            f"tiled_inference: got an image of shape {tuple(image.shape)}, expected (N, C, H, W)"
        )
    if any(not 0 <= shared < side for side, shared in zip(tile, overlap, strict=True)):
        raise DomainNormError(
            f"tiled_inference: tile={_either(tile)}, overlap={_either(overlap)}; "
            "expected 0 <= overlap < tile"
        )
    for name, value in (("batch_size", batch_size), ("thumbnail_size", thumbnail_size)):
        if value is not None and value < 1:
            raise DomainNormError(f"tiled_inference: {name}={value}, expected 1 or more")


def _check_rows(given: Mapping[str, Any], num_images: int) -> None:
    """Refuse what is given per image and not for each."""
    for name, rows in given.items():
        if rows is None or isinstance(rows, (str, int)):
            continue
        number = len(rows) if not isinstance(rows, Tensor) or rows.ndim else 0
        if number != num_images:
            raise ConditionError(f"{name}: got {number} rows for {num_images} images")


def _either(sides: tuple[int, int]) -> int | tuple[int, int]:
    return sides[0] if sides[0] == sides[1] else sides
