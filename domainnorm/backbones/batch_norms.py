"""What standard helpers for batch norms do, for converted layers, which those cannot see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from domainnorm.backbones.conversion.norm_rules import norms_at
from domainnorm.backbones.domains.moment_estimator import MomentEstimator
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import DataError
from domainnorm.norms.layer import Statistics
from domainnorm.terminal import create_console


def update_bn(
    loader: Iterable[Any],
    model: DomainModel,
    device: torch.device | str | None = None,
    *,
    progress: bool = True,
) -> None:
    """Estimate the running moments of all layers anew, like `torch.optim.swa_utils.update_bn`.

    Torch's function silently skips converted layers. Here each image counts once, in the rows of
    its domain; rows of domains without images do not change. Batch norms that were not converted
    get the average over batches. Dropout is off (torch leaves it on).

    Args:
        loader: Batches ``{"image", "domain"}`` or ``(image, domain)``, domain as in
            `DomainModel.forward`; labels of classes are not read.
        model: Changed in place; its modes stay. Unwrap it from `torch.optim.swa_utils`
            (``averaged.module``) first.
        device: Device for the images; None: that of the model.
        progress: Show a progress bar on standard error, if that is a terminal.

    Raises:
        DataError: No images, or batches of another form.
        ConditionError: See `DomainModel.forward`.
    """
    place = next(model.parameters()).device if device is None else device
    estimator = MomentEstimator(model)
    console = create_console(error=True)
    hidden = not (progress and console.is_terminal)
    shown = track(loader, "moments", console=console, disable=hidden)
    batches = images_with_domains(shown, "update_bn")
    first = next(((image, domain) for image, domain in batches if len(image)), None)
    if first is None:
        raise DataError("update_bn: the loader gave no images; give those of each domain")
    with _starting_anew(model) as plain:
        for image, domain in chain([first], batches):
            with estimator.observing():
                for layer in plain:
                    layer.train()
                model(image.to(place), domain)
    estimator.write()


def freeze_bn(model: DomainModel, where: str | Sequence[str] = "all") -> None:
    """Freeze batch norms in their evaluation form, like `timm.utils.freeze`.

    Converted layers then normalize with their running moments in training too. Running moments,
    scales and shifts do not change until `update_bn` or `unfreeze_bn`. In layers without running
    moments only scales and shifts are frozen. Use timm's function for batch norms that were not
    converted.

    Args:
        model: Changed in place.
        where: As in `convert_norms`.

    Raises:
        ConversionError: An entry of ``where`` that matches no layer.
    """
    _set_frozen(model, where, True)


def unfreeze_bn(model: DomainModel, where: str | Sequence[str] = "all") -> None:
    """Train layers again that `freeze_bn` has frozen, or that were frozen before conversion."""
    _set_frozen(model, where, False)


def images_with_domains(loader: Iterable[Any], asking: str) -> Iterator[tuple[Tensor, Any]]:
    """Images and domains of batches ``{"image", "domain"}`` or ``(image, domain)``.

    Raises:
        DataError: Another form; the message begins with the name of who is ``asking``.
    """
    for number, batch in enumerate(loader):
        image, domain = None, None
        if isinstance(batch, Mapping):
            image, domain = batch.get("image"), batch.get("domain")
        elif isinstance(batch, (tuple, list)) and len(batch) == 2:
            image, domain = batch
        if not isinstance(image, Tensor):
            raise DataError(
                f"{asking}: batch {number} is {type(batch).__name__}, expected a mapping with "
                "'image' and 'domain', or (image, domain)"
            )
        yield image, domain


def _set_frozen(model: DomainModel, where: str | Sequence[str], frozen: bool) -> None:
    for norm in norms_at(model.backbone, where):
        for part in norm.statistics.modules():
            if isinstance(part, Statistics):
                part.frozen = frozen
        norm.statistics.train(norm.training)
        for half in (norm.statistics, norm.modulation):
            half.requires_grad_(not frozen)


@contextmanager
def _starting_anew(model: DomainModel) -> Iterator[list[_BatchNorm]]:
    """Batch norms that are torch's, their moments averages of the batches to come."""
    plain = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [layer.momentum for layer in plain]
    for layer in plain:
        layer.reset_running_stats()
        layer.momentum = None
    try:
        yield plain
    finally:
        for layer, momentum in zip(plain, momenta, strict=True):
            layer.momentum = momentum
