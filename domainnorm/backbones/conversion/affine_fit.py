"""Scale and shift of converted layers, fitted to the layers that they replaced."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, TypeAlias

import torch
from rich.progress import Progress
from torch import Tensor, nn

from domainnorm.backbones.batch_norms import images_with_domains
from domainnorm.backbones.conversion.converted import CalibratedLayer, Calibration
from domainnorm.backbones.conversion.kinds import kind_of
from domainnorm.backbones.conversion.norm_layers import evaluating
from domainnorm.backbones.model import DomainModel
from domainnorm.condition import Condition, as_condition
from domainnorm.errors import ConversionError, DataError
from domainnorm.norms import ConditionalNorm
from domainnorm.norms.kernels.per_sample import accumulate_dtype
from domainnorm.norms.modulations.by_domain import TableModulation
from domainnorm.terminal import create_console

# Scale and shift, of a shape that broadcasts to (G, C) each.
Pair: TypeAlias = tuple[Tensor, Tensor]

_SAMPLES = 16  # widened to float64 at a time
_CONSTANT = 1e-12  # of the mean square: what rounding leaves of the variance of a constant


def calibrate(
    model: DomainModel, loader: Iterable[Any], *, max_batches: int = 8, progress: bool = True
) -> Calibration:
    """Fit converted layers that do not keep their function to the layers that they replaced.

    Let z be the normalized input of the layer, and y the output of the replaced layer (before its
    activation) in the original network. With averages over pixels and images of a domain, each
    channel gets ``scale = cov(z, y) / var(z)``, ``shift = avg(y) - scale · avg(z)``: the least
    squares fit to y. Layers are fitted one after another. z comes from layers that are already
    calibrated, so each layer compensates for those before it.

    A ``table`` gets a pair for each domain; domains without images get the pair of all images.
    Other modulations give all domains the pair of all images. Exact layers, running moments and
    everything else do not change. For adaptation give images of the source alone: rows fitted to
    the old network's features of a target bring its shift back.

    Args:
        model: Just converted; changed in place. It remembers the layers that were replaced.
        loader: Batches ``{"image", "domain"}`` or ``(image, domain)`` of images of one size, domain
            as in `DomainModel.forward`; labels of classes are not read. All images go through the
            network at once, so take one or two hundred.
        max_batches: Most batches to read.
        progress: Show a progress bar on standard error, if that is a terminal.

    Returns:
        The share of y's variance that each layer missed before and misses now. Printing it gives a
        table.

    Raises:
        ConversionError: No layer to calibrate, one that has no scale and shift of its own, or one
            that was trained, loaded or calibrated since the conversion.
        DataError: No images, batches of another form, or images of several sizes.
        ConditionError: See `DomainModel.forward`. After an error the model is as it was.

    Reference:
        Hubara et al., Improving Post Training Neural Quantization: Layer-wise Calibration and
        Integer Programming, 2020, arXiv:2006.10518 (layers fitted one after another to what they
        gave before). Differs: other statistics are made up for, not rounding.

    Example:
        >>> model = create_model("resnet50", 4, "cin", ["site_a", "site_b"], pretrained=True)
        >>> print(calibrate(model, loader))
    """
    layers = _inexact_layers(model)
    image, domain = _gather(model, loader, max_batches)
    console = create_console(error=True)
    bar = Progress(console=console, disable=not (progress and console.is_terminal))
    with evaluating(model), _restoring(layers.values()), bar:
        task = bar.add_task("layers", total=len(layers))
        fits = {path: _Fit(norm, domain, model.num_domains) for path, norm in layers.items()}
        # Both networks in one pass: the one before the conversion in the first half of the rows,
        # the calibrated one in the second.
        with ExitStack() as hooks, model.slot.holding(Condition(domain=domain.repeat(2))):
            for fit in fits.values():
                hook = fit.hook(lambda: bar.advance(task))
                hooks.enter_context(fit.norm.register_forward_hook(hook))
            model.backbone(torch.cat([image, image]))
    counts = domain.bincount(minlength=model.num_domains).tolist()
    return Calibration(
        tuple(CalibratedLayer(path, *fit.missed()) for path, fit in fits.items() if fit.reached),
        dict(zip(model.domain_names, counts, strict=True)),
    )


def _inexact_layers(model: DomainModel) -> dict[str, ConditionalNorm]:
    layers = {}
    for layer in model.conversion:
        norm = model.backbone.get_submodule(layer.path)
        if not layer.exact and isinstance(norm, ConditionalNorm):
            layers[layer.path] = norm
            _check(layer.path, norm, model.num_domains)
    if not layers:
        raise ConversionError(
            "calibrate: every converted layer keeps its function, so nothing needs calibration; it "
            "is for layers that change, such as instance statistics in place of a batch norm"
        )
    return layers


def _check(path: str, norm: ConditionalNorm, num_domains: int) -> None:
    modulation = norm.modulation
    parameters = list(modulation.parameters())
    if modulation.needs or not parameters:
        why = f"follow the {modulation.needs}" if modulation.needs else "are always 1 and 0"
        raise ConversionError(
            f"{path}: scale and shift of a domain cannot be set, they {why}; leave this layer "
            "out with `where`, or take modulation 'table' or 'shared'"
        )
    labels = torch.arange(num_domains, device=parameters[0].device)
    with evaluating(modulation):
        found = modulation(Condition(domain=labels), labels)
    for rows, start in zip(found, _start_of(norm), strict=True):
        if not torch.allclose(rows, start.to(rows).expand_as(rows), rtol=1e-4, atol=1e-6):
            raise ConversionError(
                f"{path}: its scale and shift have changed since the conversion, so the original "
                "network is unknown; calibrate before training, loading weights or another "
                "calibration"
            )


def _start_of(norm: ConditionalNorm) -> tuple[Tensor, Tensor]:
    """The pair of the replaced layer, (C,) each or a number."""
    assert norm.origin is not None
    kind = kind_of(norm.origin)
    assert kind is not None
    scale, shift = kind.read(norm.origin, kind.scale), kind.read(norm.origin, kind.shift)
    return (
        torch.ones(()) if scale is None else scale.detach(),
        torch.zeros(()) if shift is None else shift.detach(),
    )


def _gather(model: DomainModel, loader: Iterable[Any], max_batches: int) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and their labels (N,) on the device of the model."""
    device = next(model.parameters()).device
    images: list[Tensor] = []
    labels: list[Tensor] = []
    batches = images_with_domains(islice(loader, max_batches), "calibrate")
    for number, (image, domain) in enumerate(batches):
        if images and image.shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"calibrate: batch {number} has images {tuple(image.shape[1:])}, those before "
                f"{tuple(images[0].shape[1:])}; give images of one size"
            )
        label = as_condition(domain, None, model.domain_names, image).domain
        assert label is not None
        images.append(image.to(device))
        labels.append(label.to(device))
    if not sum(map(len, images)):
        raise DataError("calibrate: the loader gave no images; give a few batches of each domain")
    return torch.cat(images), torch.cat(labels)


@contextmanager
def _restoring(norms: Iterable[ConditionalNorm]) -> Iterator[None]:
    """Scales and shifts come back if the block fails."""
    before = [(norm.modulation, copy.deepcopy(norm.modulation.state_dict())) for norm in norms]
    try:
        yield
    except BaseException:
        for modulation, state in before:
            modulation.load_state_dict(state)
        raise


class _Fit:
    """One layer, fitted while rows of both networks pass through it."""

    def __init__(self, norm: ConditionalNorm, domain: Tensor, num_domains: int) -> None:
        self.norm = norm
        self.condition = Condition(domain=domain)
        self.num_domains = num_domains
        self.reached = False
        self._before = _start_of(norm)
        self._origin = _without_activation(norm.origin).to(domain.device).eval()

    def hook(self, done: Callable[[], None]) -> Callable[..., Tensor]:
        """What replaces the output of the layer: that of its origin, then its own once fitted."""

        def run(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            taught, own = inputs[0].chunk(2)
            wanted = self._origin(taught)
            with self.norm.slot.holding(self.condition):
                self._add(own, wanted)
                calibrated = self.norm.forward(own)
            done()
            return torch.cat([self.norm.act(self.norm.drop(wanted)), calibrated])

        return run

    def _add(self, x: Tensor, wanted: Tensor) -> None:
        """Take the rows of one run in, and write the pair that all runs so far ask for."""
        statistics, modulation = self.norm.statistics, self.norm.modulation
        axis = x.ndim - 1 if statistics.tokens else 1
        condition = self.norm.slot.read(self.norm.path, len(x), self.norm.folded)
        assert condition.domain is not None
        one = torch.ones(1, x.shape[axis], dtype=accumulate_dtype(x), device=x.device)
        z = statistics(x, one, torch.zeros_like(one), condition)
        if not self.reached:
            self._squares = LeastSquares(self.num_domains, x.shape[axis], x.device)
        self.reached = True
        self._squares.add(z.movedim(axis, 1), wanted.movedim(axis, 1), condition.domain)
        rows, pooled = self._squares.solve(self._before)
        modulation.start(*(value[0].to(one.dtype) for value in pooled))
        if isinstance(modulation, TableModulation):
            modulation.scale.copy_(rows[0])
            modulation.shift.copy_(rows[1])
        self._after = rows if isinstance(modulation, TableModulation) else pooled

    def missed(self) -> tuple[float, float]:
        """Share of the variance of what is wanted that the layer missed, and misses now."""
        return self._squares.missed(self._before), self._squares.missed(self._after)


def _without_activation(origin: nn.Module | None) -> nn.Module:
    assert origin is not None
    layer, kind = copy.deepcopy(origin), kind_of(origin)
    if kind is not None and kind.activation:
        layer.drop = layer.act = nn.Identity()
    return layer


class LeastSquares:
    """Sums of z, y, z², zy and y² over the values of each group and channel, in float64.

    Args:
        num_groups: G.
        num_features: C.
        device: Where the sums are.
    """

    def __init__(self, num_groups: int, num_features: int, device: torch.device) -> None:
        shape = (6, num_groups, num_features)
        self._sums = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, z: Tensor, y: Tensor, group: Tensor) -> None:
        """Take samples in: z is mapped to y, (N, C, *) each; ``group`` (N,) in ``0..G-1``."""
        for start in range(0, len(z), _SAMPLES):
            part = slice(start, start + _SAMPLES)
            wide = z[part].double().reshape(len(z[part]), z.shape[1], -1)  # (N, C, 1) of vectors
            other = y[part].double().reshape(wide.shape)
            values = torch.full_like(wide[..., 0], wide.shape[2])
            sums = (wide, other, wide * wide, wide * other, other * other)
            own = torch.stack([values, *(product.sum(2) for product in sums)])
            self._sums.index_add_(1, group[part], own)

    def solve(self, otherwise: Pair) -> tuple[Pair, Pair]:
        """``scale = cov(z, y) / var(z)`` and ``shift = avg(y) - scale · avg(z)``.

        The pairs of the groups, (G, C) each, and the pair of all samples together, (1, C) each,
        which an empty group has too. Channels in which z is constant get ``otherwise``'s scale.
        """
        pooled = _solve(self._sums.sum(1, keepdim=True), otherwise)
        seen = self._sums[0] > 0
        own = _solve(self._sums, otherwise)
        rows = [torch.where(seen, one, both) for one, both in zip(own, pooled, strict=True)]
        return (rows[0], rows[1]), pooled

    def missed(self, pair: Pair) -> float:
        """``Σ (y - scale · z - shift)² / Σ (y - avg y)²``, the average that of all samples."""
        scale, shift = (value.double().to(self._sums.device) for value in pair)
        count, z, y, var_z, cov, var_y = _central(self._sums)
        apart = var_y - 2 * scale * cov + scale.square() * var_z
        rest = count * (apart + (y - scale * z - shift).square())
        total = _central(self._sums.sum(1))
        whole = float((total[0] * total[5]).sum())
        return float(rest.sum().clamp(min=0)) / whole if whole > 0 else 0.0


def _central(sums: Tensor) -> tuple[Tensor, ...]:
    """Count, means of z and y, var(z), cov(z, y), var(y)."""
    count = sums[0]
    z, y, zz, zy, yy = (sums[1:] / count.clamp(min=1)).unbind()
    var_z, var_y = zz - z * z, yy - y * y
    # Of a constant, rounding leaves more or less than zero.
    var_z = torch.where(var_z > _CONSTANT * zz, var_z, 0)
    return count, z, y, var_z, zy - z * y, var_y.clamp(min=0)


def _solve(sums: Tensor, otherwise: Pair) -> Pair:
    _, z, y, var_z, cov, _ = _central(sums)
    scale = torch.where(var_z > 0, cov / var_z, otherwise[0].to(cov))
    return scale, y - scale * z
