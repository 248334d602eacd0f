"""Swap a network's normalization layers for conditional ones, keeping what they carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from domainnorm.backbones.model import ConvertedLayer, DomainModel
from domainnorm.backbones.probe import LayerInput, probe_inputs
from domainnorm.backbones.rules import NormChoice, NormRule, resolve_rules
from domainnorm.backbones.unseen import Unseen
from domainnorm.backbones.where import Regions
from domainnorm.condition import ConditionSlot
from domainnorm.errors import ConversionError, DomainNormError, UnknownNameError
from domainnorm.norms import CATALOGUE, ConditionalNorm, create_norm
from domainnorm.norms.create import norm_options
from domainnorm.norms.running import RunningMoments

# Exact types: a subclass may carry more (timm's BatchNormAct2d carries the activation), and a swap
# that does not know about it would silently delete it.
CONVERTIBLE: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    BatchNormAct2d,
)
_TIMM_NORM_WORDS = ("evo", "frn", "filterresponse")


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

    ``cbn`` and ``dsbn`` preserve the function: same outputs as before for every domain. Instance
    statistics cannot; layers whose map has a single element (squeeze-and-excitation, vectors) get
    domain statistics instead of instance ones, which would be zero there.

    Args:
        network: Any module with `torch.nn.BatchNorm1d/2d/3d` or timm's ``BatchNormAct2d`` layers.
        norm: A catalogue name, ``{statistics, modulation, where}``, or rules by region such as
            ``{"early": "cin", "late": "dsbn"}``, which is what ``"cin"`` means. None: ``dsbn``.
        domains: Names of the domains; a label is a position in this list.
        where: ``all``, ``stem``, ``early``, ``late``, globs over module paths, or a list.
        example: An input (1, 3, H, W), not constant, to look at what the layers see: maps of one
            element, and images that are folded into several rows (LeViT). Without it only vectors
            are known to have a single element, and the other cases raise when they are met.
        unseen: What is done about samples of unseen domains in evaluation, see `DomainModel`.

    Raises:
        ConversionError: No convertible layer, a norm class that is not known (its path is given),
            a pattern or rules that match nothing, or no domains.
    """
    domain_names = _check_domains(domains)
    layers = _find_layers(network, where)
    choices = resolve_rules(norm, Regions(network, list(layers)), where)
    unknown = [path for path in choices if type(layers[path]) not in CONVERTIBLE]
    if unknown:
        raise ConversionError(_refusal(unknown, layers))
    if not choices:
        raise ConversionError(
            f"{type(network).__name__}: norm={norm!r} with where={where!r} leaves every norm layer "
            "as it is; match at least one of them, e.g. where='all'"
        )
    inputs = _inputs(network, choices, layers, example)
    slot, report = ConditionSlot(), []
    new: dict[str, ConditionalNorm] = {}
    for path, choice in choices.items():
        seen = inputs.get(path)
        replaced, note = _instead_of_instance(choice, seen)
        new[path] = _convert(layers[path], replaced, len(domain_names), slot, path)
        new[path].folded = seen is not None and seen.folded
        report.append(_describe(path, layers[path], replaced, new[path], note))
    for path, converted in new.items():  # only now, so that a refused network is left as it was
        network = _replace(network, path, converted)
    model = DomainModel(network, domain_names, slot, report)
    model.unseen = unseen
    return model


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
    """Norm classes that would need a converter: known bases, others by name."""
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)):
        return True
    name = type(module).__name__.lower()
    if type(module).__module__.startswith("torch.") or "globalresponse" in name or "conv" in name:
        return False
    in_timm = type(module).__module__.startswith("timm.")
    named = "norm" in name or (in_timm and any(word in name for word in _TIMM_NORM_WORDS))
    # Containers own nothing; a layer that normalizes images by mean and std owns other buffers.
    own = any(True for _ in module.parameters(recurse=False))
    frozen = "running_var" in dict(module.named_buffers(recurse=False))
    return named and (own or frozen)


def _refusal(unknown: Sequence[str], layers: Mapping[str, nn.Module]) -> str:
    shown = ", ".join(f"{path} ({type(layers[path]).__name__})" for path in unknown[:3])
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    names = ", ".join(kind.__name__ for kind in CONVERTIBLE)
    return (
        f"{shown}{more}: not a norm this version converts ({names}); leave these layers "
        "unconditioned with `where`, e.g. where=['all', '!PATH']"
    )


def _inputs(
    network: nn.Module,
    choices: Mapping[str, NormChoice],
    layers: Mapping[str, nn.Module],
    example: Tensor | None,
) -> dict[str, LayerInput]:
    """What the layers that are to be converted see, where that is known."""
    if example is None:
        vectors = [path for path in choices if type(layers[path]) is nn.BatchNorm1d]
        return {path: LayerInput(size=1) for path in vectors}
    return probe_inputs(network, {path: layers[path] for path in choices}, example)


def _is_instance(choice: NormChoice) -> bool:
    """Whether the norm, or a part of it, takes moments over the pixels of one channel."""
    statistics, options = choice.name.partition("*")[0].strip(), choice.options
    if choice.name in CATALOGUE:
        spec = CATALOGUE[choice.name]
        statistics, options = spec.statistics, {**spec.options, **options}
    parts = options.get("parts") or ["instance"] if statistics == "mixed" else [statistics]
    return bool({"instance", "thumbnail"} & set(parts))


def _instead_of_instance(choice: NormChoice, seen: LayerInput | None) -> tuple[NormChoice, str]:
    """The choice, or domain statistics where instance ones make no sense, and why."""
    if not _is_instance(choice) or seen is None or (seen.size > 1 and not seen.folded):
        return choice, ""
    modulation = choice.name.partition("*")[2] or CATALOGUE[choice.name].modulation
    why = "its map has one element" if seen.size == 1 else "its rows are parts of images"
    name = f"domain*{modulation.strip()}"
    kept = {key: value for key, value in choice.options.items() if key in norm_options(name)}
    return NormChoice(name, kept), f"asked for {choice.name}, but {why}"


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
    if "momentum" in norm_options(choice.name):
        options = {"momentum": old.momentum, **options}
    try:
        new = create_norm(
            choice.name, old.num_features, num_domains, slot=slot, path=path, **options
        )
    except UnknownNameError:
        raise
    except DomainNormError as error:
        raise ConversionError(f"{path}: {error}") from error
    new = new.to(old.running_mean.device)
    new.modulation.to((old.running_mean if old.weight is None else old.weight).dtype)
    if old.weight is not None:
        new.modulation.start(old.weight, old.bias)
        parameters = dict(new.modulation.named_parameters())
        for name, value in (("scale", old.weight), ("shift", old.bias)):
            if name in parameters:
                parameters[name].requires_grad_(value.requires_grad)
    new.statistics.to(old.running_mean.dtype)
    new.statistics.start(old.running_mean, old.running_var, old.num_batches_tracked)
    if isinstance(old, BatchNormAct2d):
        new.drop, new.act = old.drop, old.act
    new.remember(old)
    return new.train(old.training)


def _replace(network: nn.Module, path: str, converted: nn.Module) -> nn.Module:
    if not path:
        return converted
    old = network.get_submodule(path)
    # A layer that is used in several places has several paths.
    for alias, module in list(network.named_modules(remove_duplicate=False)):
        if module is old:
            parent, _, name = alias.rpartition(".")
            setattr(network.get_submodule(parent), name, converted)
    return network


def _describe(
    path: str, old: nn.Module, choice: NormChoice, new: ConditionalNorm, note: str
) -> ConvertedLayer:
    tracked = isinstance(new.statistics, RunningMoments)  # rows of others are not domains
    buffers = new.statistics.buffers() if tracked else ()
    moments = [tensor for tensor in buffers if tensor.ndim == 2]
    per_domain = sum(
        tensor.shape[1] * tensor.element_size()
        for tensor in (*new.modulation.rows(), *moments)
        if len(tensor) > 1
    )
    exact = new.statistics.keeps_function and new.modulation.keeps_function
    return ConvertedLayer(path, type(old).__name__, choice.name, exact, per_domain, note)
