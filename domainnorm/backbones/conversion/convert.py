"""Swap a network's normalization layers for conditional ones, keeping what they carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.backbones.conversion.converted import ConvertedLayer
from domainnorm.backbones.conversion.example import example_image
from domainnorm.backbones.conversion.kinds import NormKind
from domainnorm.backbones.conversion.norm_layers import (
    LayerInput,
    check_kinds,
    find_norms,
    probe_inputs,
    replace_modules,
)
from domainnorm.backbones.conversion.norm_rules import (
    Fit,
    NormRule,
    Regions,
    fit_choices,
    resolve_rules,
    statistics_of,
)
from domainnorm.backbones.domains.owned_rows import owned_rows
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConversionError, DomainNormError, UnknownNameError
from domainnorm.norms import ConditionalNorm, create_norm
from domainnorm.norms.catalogue import norm_options
from domainnorm.ranges import Unseen
from domainnorm.slot import ConditionSlot

_TRAINING = ("momentum", "frozen")  # constants that evaluation does not depend on


def convert_norms(
    network: nn.Module,
    norm: NormRule = None,
    domains: Sequence[str] = (),
    *,
    where: str | Sequence[str] = "all",
    example: Tensor | None = None,
    unseen: Unseen = "error",
) -> DomainModel:
    """Replace norm layers of ``network``, in place, and wrap it in a `DomainModel`.

    The **kin** of a norm layer is its conditional form: directly after conversion it gives the
    outputs of the original layer, up to rounding, for every domain. It is ``dsbn`` (or ``cbn``) for
    batch norms, ``cln`` for layer, ``cgn`` for group, ``crms`` for RMS, ``cin`` for instance norms.
    A layer without scale or shift gets rows that start at 1 and 0.

    A name converts the layers of its family; other layers of the network become their kin. If the
    network has no layer of that family, the name converts all layers, where the mathematics allows.
    Layers whose map has a single element (squeeze-and-excitation, vectors) get the statistics of
    their kin, since instance statistics would give zero there.

    Args:
        network: Any module whose norms are torch's, timm's or torchvision's, or registered with
            `register_norm_class`.
        norm: A catalogue name, ``{statistics, modulation, where}``, or rules by region such as
            ``{"early": "cin", "late": None}``, which is the meaning of ``"cin"``. Rules hold for
            layers of every family. None: each layer becomes its kin.
        domains: Names of the domains; a label is a position in this list.
        where: ``all``, ``stem``, ``early``, ``late``, ``encoder``, ``decoder``, globs over module
            paths, or a list.
        example: An input (1, 3, H, W), not constant. It shows which maps have one element, and
            which layers fold an image into several rows (LeViT). Networks of timm have their own.
            Without it, only vectors are known to have a single element; other such maps raise an
            error when they are met.
        unseen: Policy for samples of unseen domains in evaluation, see `DomainModel`.

    Raises:
        ConversionError: No convertible layer, a norm class that is not known (its path is given), a
            norm that a layer cannot have, a layer whose rows do not belong to one image each, a
            pattern or rules that match nothing, or no domains.
    """
    domain_names = _check_domains(domains)
    layers = find_norms(network)
    choices = resolve_rules(norm, Regions(network, list(layers)), where)
    kinds = check_kinds(list(choices), layers)
    if not choices:
        raise ConversionError(
            f"{type(network).__name__}: norm={norm!r} with where={where!r} leaves every norm layer "
            "as it is; match at least one of them, e.g. where='all'"
        )
    if example is None and isinstance(getattr(network, "pretrained_cfg", None), Mapping):
        example = _own_example(network)
    inputs = _inputs(network, {path: layers[path] for path in choices}, example)
    slot, report = ConditionSlot(), []
    new: dict[str, ConditionalNorm] = {}
    default = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(()))
    for path, fit in fit_choices(choices, kinds, inputs).items():
        one = _create(layers[path], kinds[path], fit, len(domain_names), path, slot)
        new[path] = _convert(layers[path], kinds[path], one, default)
        new[path].folded = path in inputs and inputs[path].folded
        new[path].to_channels_last = kinds[path].to_channels_last
        new[path].maps_too = kinds[path].maps_too
        report.append(_describe(layers[path], kinds[path], fit, new[path]))
        new[path].remember(layers[path], values=not report[-1].exact)
    # Only now, so that a refused network is left as it was.
    replaced = {layers[path]: converted for path, converted in new.items()}
    model = DomainModel(replace_modules(network, replaced), domain_names, slot, report)
    model.unseen = unseen
    return model


def _check_domains(domains: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(domains, Iterable):
        raise ConversionError(f"domains: got {domains!r}, expected a list of names")
    names = (domains,) if isinstance(domains, str) else tuple(domains)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConversionError(f"domains: got {list(names)}, expected a list of names")
    if not all(name.isprintable() for name in names):  # files of weights and packs hold them
        raise ConversionError(f"domains: got {list(names)}, expected names that can be printed")
    if len(set(names)) != len(names):
        raise ConversionError(f"domains: {list(names)} names a domain twice")
    return names


def _own_example(network: nn.Module) -> Tensor | None:
    """The example that a network tells itself, None where it takes other things than images."""
    try:
        return example_image(network)
    except Exception:  # whatever its forward says of an image alone
        return None


def _inputs(
    network: nn.Module, layers: Mapping[str, nn.Module], example: Tensor | None
) -> dict[str, LayerInput]:
    """What the layers that are to be converted see, where that is known."""
    if example is None:
        vectors = [path for path, layer in layers.items() if type(layer) is nn.BatchNorm1d]
        return {path: LayerInput(size=1) for path in vectors}
    inputs = probe_inputs(network, layers, example)
    for path, seen in inputs.items():
        if seen.problem:
            raise ConversionError(
                f"{path} ({type(layers[path]).__name__}): {seen.problem}, so its rows belong to no "
                f"domain; leave this layer unconditioned, where=['all', '!{path}']"
            )
    return inputs


def _create(
    old: nn.Module, kind: NormKind, fit: Fit, num_domains: int, path: str, slot: ConditionSlot
) -> ConditionalNorm:
    try:
        return create_norm(
            fit.name, kind.size(old), num_domains, slot=slot, path=path, **_options(old, kind, fit)
        )
    except UnknownNameError:
        raise
    except DomainNormError as error:
        raise ConversionError(
            f"{path}: {error}; '{kind.kin}' (or norm=None) keeps this layer's function"
        ) from error


def _convert(
    old: nn.Module, kind: NormKind, new: ConditionalNorm, default: Tensor
) -> ConditionalNorm:
    """Give ``new`` what ``old`` carries; ``default`` has the dtype for layers without tensors."""
    scale, shift = kind.read(old, kind.scale), kind.read(old, kind.shift)
    mean = kind.read(old, "running_mean")
    tensors = [tensor for tensor in (scale, shift, mean, default) if tensor is not None]
    new = new.to(tensors[0].device)
    new.modulation.to(tensors[0].dtype)
    new.statistics.to((tensors[0] if mean is None else mean).dtype)
    _start_modulation(new, scale, shift)
    if mean is not None:
        batches = kind.read(old, "num_batches_tracked")
        new.statistics.start(mean, old.get_buffer("running_var"), batches)
    if kind.activation:  # SyncBatchNormAct has them only where the layer it was made from did
        new.drop = getattr(old, "drop", new.drop)
        new.act = getattr(old, "act", new.act)
    return new.train(old.training)


def _options(old: nn.Module, kind: NormKind, fit: Fit) -> dict[str, Any]:
    """Constants of the layer that the new norm knows, then what was asked for."""
    known = norm_options(fit.name)
    # Tokens are passed on in any case: a norm without a form for them has to refuse.
    constants = kind.options(old)
    kept = {key: value for key, value in constants.items() if key in known or key == "tokens"}
    return {**kept, **fit.options}


def _start_modulation(new: ConditionalNorm, scale: Tensor | None, shift: Tensor | None) -> None:
    """Give all domains the pair of the old layer; a frozen tensor stays frozen."""
    one = next((tensor for tensor in (scale, shift) if tensor is not None), None)
    if one is None:
        return
    new.modulation.start(
        torch.ones_like(one) if scale is None else scale,
        torch.zeros_like(one) if shift is None else shift,
    )
    parameters = dict(new.modulation.named_parameters())
    for name, value in (("scale", scale), ("shift", shift)):
        if name in parameters:
            flag = one.requires_grad if value is None else value.requires_grad
            parameters[name].requires_grad_(flag)


def _describe(old: nn.Module, kind: NormKind, fit: Fit, new: ConditionalNorm) -> ConvertedLayer:
    per_domain = sum(rows.bytes for rows in owned_rows(new) if len(rows.tensor) > 1)
    return ConvertedLayer(
        new.path, type(old).__name__, fit.name, _is_exact(old, kind, fit, new), per_domain, fit.note
    )


def _is_exact(old: nn.Module, kind: NormKind, fit: Fit, new: ConditionalNorm) -> bool:
    """Whether outputs in evaluation are those of the old layer."""
    if not new.modulation.keeps_function:
        return False
    formula = {key: value for key, value in kind.options(old).items() if key not in _TRAINING}
    if any(fit.options.get(key, value) != value for key, value in formula.items()):
        return False
    if kind.family == "batch":
        return new.statistics.keeps_function
    return statistics_of(fit.name) == statistics_of(kind.kin)
