"""Swap a network's normalization layers for conditional ones, keeping what they carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from domainnorm.backbones.model import ConvertedLayer, DomainModel
from domainnorm.backbones.rules import NormChoice, NormRule, resolve_rules
from domainnorm.backbones.where import Regions
from domainnorm.condition import ConditionSlot
from domainnorm.errors import ConversionError
from domainnorm.norms import ConditionalNorm, create_norm
from domainnorm.norms.running import RunningMoments

# Exact types: a subclass may carry more (timm's BatchNormAct2d carries the activation), and a swap
# that does not know about it would silently delete it.
CONVERTIBLE: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    BatchNormAct2d,
)
_NORM_WORDS = ("norm", "evo", "frn", "filterresponse")


def convert_norms(
    network: nn.Module,
    norm: NormRule = None,
    domains: Sequence[str] = (),
    *,
    where: str | Sequence[str] = "all",
    example: Tensor | None = None,
) -> DomainModel:
    """Replace norm layers of ``network``, in place, and wrap it in a `DomainModel`.

    ``cbn`` and ``dsbn`` preserve the function: same outputs as before for every domain. Instance
    statistics cannot; layers whose map has a single element (squeeze-and-excitation, vectors) get
    domain statistics instead of instance ones, which would be zero there.

    Args:
        network: Any module with `torch.nn.BatchNorm1d/2d/3d` or timm's ``BatchNormAct2d`` layers.
        norm: A catalogue name, ``{statistics, modulation, where}``, or rules by region such as
            ``{"early": "cin", "late": "dsbn"}``, which is what ``"cin"`` means. None: ``dsbn``.
        domains: Names of the domains; a label is a position in this list.
        where: ``all``, ``stem``, ``early``, ``late``, globs over module paths, or a list.
        example: An input (1, 3, H, W) to look at map sizes with, when instance statistics are
            asked for; without it only vectors are known to have a single element, and a map of one
            element raises when it is met.

    Raises:
        ConversionError: No convertible layer, a norm class that is not known (its path is given),
            a pattern that matches nothing, or no domains.
    """
    domain_names = _check_domains(domains)
    layers = _find_layers(network, where)
    choices = resolve_rules(norm, Regions(network, list(layers)), where)
    unknown = [path for path in choices if type(layers[path]) not in CONVERTIBLE]
    if unknown:
        raise ConversionError(_refusal(unknown, layers))
    sizes = _map_sizes(network, choices, layers, example)
    slot, report = ConditionSlot(), []
    for path, choice in choices.items():
        replaced = _instead_of_one_element(choice, sizes.get(path))
        converted = _convert(layers[path], replaced, len(domain_names), slot, path)
        network = _replace(network, path, converted)
        report.append(_describe(path, layers[path], replaced, converted, choice))
    return DomainModel(network, domain_names, slot, report)


def _check_domains(domains: Sequence[str]) -> tuple[str, ...]:
    names = (domains,) if isinstance(domains, str) else tuple(domains)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConversionError(f"domains: got {list(names)}, expected a list of names")
    if len(set(names)) != len(names):
        raise ConversionError(f"domains: {list(names)} names a domain twice")
    return names


def _find_layers(network: nn.Module, where: str | Sequence[str]) -> dict[str, nn.Module]:
    """Every norm layer by path, those that cannot be converted included."""
    layers = {
        path: module
        for path, module in network.named_modules()
        if type(module) in CONVERTIBLE or _is_other_norm(module)
    }
    if any(isinstance(module, ConditionalNorm) for module in network.modules()):
        raise ConversionError("this network is converted already; convert the original once")
    if not layers:
        raise ConversionError(
            f"{type(network).__name__}: no batch normalization layer to convert (where={where!r})"
        )
    return layers


def _is_other_norm(module: nn.Module) -> bool:
    """Norm classes that would need a converter: known bases, and timm's by name; leaves only."""
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)):
        return True
    name = type(module).__name__.lower()
    in_timm = type(module).__module__.startswith("timm.layers")
    return (
        in_timm
        and any(word in name for word in _NORM_WORDS)
        and "globalresponse" not in name
        and "conv" not in name
        and any(True for _ in module.parameters(recurse=False))
    )


def _refusal(unknown: Sequence[str], layers: Mapping[str, nn.Module]) -> str:
    shown = ", ".join(f"{path} ({type(layers[path]).__name__})" for path in unknown[:3])
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    names = ", ".join(kind.__name__ for kind in CONVERTIBLE)
    return (
        f"{shown}{more}: not a norm this version converts ({names}); leave these layers "
        "unconditioned with `where`, e.g. where=['all', '!PATH']"
    )


def _map_sizes(
    network: nn.Module,
    choices: Mapping[str, NormChoice],
    layers: Mapping[str, nn.Module],
    example: Tensor | None,
) -> dict[str, int]:
    """Elements per channel that instance-normalized layers would see, where that is known."""
    wanted = {path for path, choice in choices.items() if _is_instance(choice)}
    if not wanted or example is None:
        return {path: 1 for path in wanted if type(layers[path]) is nn.BatchNorm1d}
    sizes: dict[str, int] = {}

    def recorder(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sizes[path] = inputs[0][0, 0].numel() if inputs[0].ndim > 2 else 1

        return record

    hooks = [layers[path].register_forward_pre_hook(recorder(path)) for path in wanted]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            network(example)
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    return sizes


def _is_instance(choice: NormChoice) -> bool:
    return choice.name in ("in", "cin") or choice.name.startswith("instance*")


def _instead_of_one_element(choice: NormChoice, size: int | None) -> NormChoice:
    if size != 1:
        return choice
    modulation = "shared" if choice.name in ("in", "instance*shared") else "table"
    return NormChoice(f"domain*{modulation}", choice.options)


def _convert(
    old: nn.Module, choice: NormChoice, num_domains: int, slot: ConditionSlot, path: str
) -> ConditionalNorm:
    assert isinstance(old, _NormBase)
    if old.running_mean is None or old.running_var is None:
        raise ConversionError(
            f"{path}: batch norm without running statistics (track_running_stats=False) has no "
            "moments to start from; leave it out with `where`"
        )
    options = {"eps": old.eps, **choice.options}
    if not _is_instance(choice):
        options = {"momentum": old.momentum, **options}
    new = create_norm(choice.name, old.num_features, num_domains, slot=slot, path=path, **options)
    new = new.to(old.running_mean.device)
    if old.weight is not None:
        new.modulation.to(old.weight.dtype)
    with torch.no_grad():
        for name, value in (("scale", old.weight), ("shift", old.bias)):
            if value is not None:
                parameter = new.modulation.get_parameter(name)
                parameter.copy_(value.expand_as(parameter))
                parameter.requires_grad_(value.requires_grad)
        if isinstance(new.statistics, RunningMoments):
            new.statistics.to(old.running_mean.dtype)
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                new.statistics.get_buffer(name).copy_(old.get_buffer(name))
    if isinstance(old, BatchNormAct2d):
        new.drop, new.act = old.drop, old.act
    return new.train(old.training)


def _replace(network: nn.Module, path: str, converted: nn.Module) -> nn.Module:
    if not path:
        return converted
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, converted)
    return network


def _describe(
    path: str, old: nn.Module, choice: NormChoice, new: ConditionalNorm, asked: NormChoice
) -> ConvertedLayer:
    per_domain = sum(
        tensor.shape[1] * tensor.element_size()
        for tensor in (*new.modulation.parameters(), *new.statistics.buffers())
        if tensor.ndim == 2 and tensor.shape[0] > 1
    )
    note = "" if choice == asked else f"asked for {asked.name}, but its map has one element"
    exact = not _is_instance(choice)
    return ConvertedLayer(path, type(old).__name__, choice.name, exact, per_domain, note)
