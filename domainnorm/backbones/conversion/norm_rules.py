"""Which norm each layer gets: regions of a network, and the rules of a recipe's ``norm``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeGuard

from torch import nn

from domainnorm.backbones.conversion.kinds import NormKind
from domainnorm.backbones.conversion.norm_layers import LayerInput
from domainnorm.errors import ConversionError
from domainnorm.norms import CATALOGUE, ConditionalNorm
from domainnorm.norms.catalogue import norm_options, rules_of

REGIONS = ("all", "stem", "early", "late")
PARTS = ("encoder", "decoder")  # children of segmentation networks
# Feature maps down to 1/8 of the image are "early": stem, layer1 and layer2 of a ResNet, stem and
# the first three stages of an EfficientNet, where instance statistics help and do not hurt.
_EARLY_REDUCTION = 8

NormRule = str | Mapping[str, Any] | None
_SPEC_KEYS = {"name", "statistics", "modulation"}
# Statistics -> families of layers that a name with these statistics is meant for; the others
# (cluster, mixed, ...) are meant for batch norms.
_HOMES = {
    "instance": {"batch", "instance"},
    "thumbnail": {"batch", "instance"},
    **{name: {name} for name in ("layer", "group", "rms", "deviation")},
}


class Regions:
    """The norm layers of a network by region.

    ``early`` reaches to the end of the last feature map with a reduction of 8 or less, as timm's
    ``feature_info`` tells; ``stem`` to the end of the first one. A network without ``feature_info``
    is cut in the middle of its list of norm layers, and its stem is the first of them. ``encoder``
    and ``decoder`` are the children of that name (segmentation_models_pytorch).

    Args:
        network: The network, before conversion.
        paths: Module paths of its norm layers, in definition order.
    """

    def __init__(self, network: nn.Module, paths: Sequence[str]) -> None:
        self.paths = list(paths)
        maps = feature_maps(network)
        early = [path for path, reduction in maps if reduction <= _EARLY_REDUCTION]
        if early:
            order = [path for path, _ in network.named_modules()]
            of_early, of_stem = (self._up_to(order, last) for last in (early[-1], early[0]))
        else:
            of_early, of_stem = set(paths[: (len(paths) + 1) // 2]), set(paths[:1])
        everything = set(paths)
        regions = (everything, of_stem, of_early, everything - of_early)
        self._regions = dict(zip(REGIONS, regions, strict=True))

    def _up_to(self, order: list[str], last: str) -> set[str]:
        end = max(i for i, path in enumerate(order) if f"{path}.".startswith(f"{last}."))
        return set(order[: end + 1]) & set(self.paths)

    def select(self, where: str | Sequence[str]) -> set[str]:
        """Paths of the norm layers that ``where`` means.

        Args:
            where: A region, a glob over module paths (``"layer1.*"``), or a list of them; ``"!"``
                in front takes layers away, the last matching entry decides.

        Raises:
            ConversionError: An entry that matches no norm layer.
        """
        chosen: set[str] = set()
        for entry in [where] if isinstance(where, str) else where:
            pattern = entry.removeprefix("!")
            matched = self._match(pattern)
            if not matched and pattern not in REGIONS:
                sample = ", ".join(self.paths[:3])
                raise ConversionError(
                    f"where: '{pattern}' matches none of the {len(self.paths)} norm layers "
                    f"({sample}, …); use {', '.join(REGIONS)} or a glob over these paths, and "
                    f"{' or '.join(PARTS)} where the network has such a child"
                )
            chosen = chosen - matched if entry.startswith("!") else chosen | matched
        return chosen

    def _match(self, pattern: str) -> set[str]:
        if pattern in REGIONS:
            return self._regions[pattern]
        if pattern in PARTS:
            return {path for path in self.paths if path.startswith(f"{pattern}.")}
        return {path for path in self.paths if fnmatchcase(path, pattern)}


def norms_at(network: nn.Module, where: str | Sequence[str]) -> list[ConditionalNorm]:
    """Norms of a converted network in some places, in definition order.

    Args:
        network: As `DomainModel.backbone`.
        where: See `Regions.select`.

    Raises:
        ConversionError: An entry of ``where`` that matches no norm.
    """
    modules = network.named_modules()
    norms = {path: norm for path, norm in modules if isinstance(norm, ConditionalNorm)}
    chosen = Regions(network, list(norms)).select(where)
    return [norm for path, norm in norms.items() if path in chosen]


def feature_maps(network: nn.Module) -> list[tuple[str, int]]:
    """(module path, reduction) of the feature maps that timm declares, finest first.

    Of the network itself, or of the first module in it that declares some (the encoder of a
    segmentation network).
    """
    for path, module in network.named_modules():
        found = _declared(module, f"{path}." if path else "")
        if found:
            return found
    return []


def _declared(module: nn.Module, prefix: str) -> list[tuple[str, int]]:
    declared = getattr(module, "feature_info", None)
    if declared is None:
        return []
    known = {path for path, _ in module.named_modules()}
    found = []
    for item in declared:
        if not isinstance(item, dict) or "reduction" not in item:
            continue
        # timm's features_only networks are flat: stages.0 is their child stages_0.
        path = str(item.get("module"))
        path = path if path in known else path.replace(".", "_")
        if path in known:
            found.append((f"{prefix}{path}", int(item["reduction"])))
    return sorted(found, key=lambda pair: pair[1])


@dataclass(frozen=True)
class NormChoice:
    """The norm one layer gets.

    Args:
        name: Catalogue name or ``"statistics*modulation"``; None for the layer's kin, the norm that
            preserves its function.
        options: Keywords for `domainnorm.norms.create_norm`.
        forced: Whether a rule says so, in which case it counts for layers of every family.
        rest: Whether it is what a name leaves for late layers: those of other families get their
            kin, even where there is no layer that it is meant for.
    """

    name: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    forced: bool = False
    rest: bool = False


@dataclass(frozen=True)
class Fit:
    """The norm one layer gets, and why it is not the one that was asked for (or empty)."""

    name: str
    options: Mapping[str, Any]
    note: str = ""


def resolve_rules(
    norm: NormRule, regions: Regions, where: str | Sequence[str] = "all"
) -> dict[str, NormChoice]:
    """The choice for every layer that is to be converted, by module path.

    Args:
        norm: None (each layer's kin), a name, ``{name: …}`` or ``{statistics: …, modulation: …}``
            with options and an optional ``where``, or rules ``{pattern: name, mapping or None}`` of
            which the last that matches a layer decides. ``cin`` alone, where ``all`` layers or
            those of the ``encoder`` are meant, single ones left out or not, is instance statistics
            early and each layer's kin late; ``ibn_a`` alone has ``bn`` late.
        regions: The norm layers of the network.
        where: Limits the whole conversion.

    Raises:
        ConversionError: A pattern that matches no layer, or a mapping that names no norm.
    """
    chosen: dict[str, NormChoice] = {}
    within = regions.select(where)
    if _is_spec(norm) and "where" in norm:
        where = norm["where"]
        within &= regions.select(where)
        norm = {key: value for key, value in norm.items() if key != "where"}
    for pattern, choice in _pairs(norm, where):
        for path in regions.select(pattern):
            chosen[path] = choice
    return {path: chosen[path] for path in regions.paths if path in chosen and path in within}


def _is_spec(norm: NormRule) -> TypeGuard[Mapping[str, Any]]:
    """Whether it describes one norm, instead of naming one or being rules."""
    return isinstance(norm, Mapping) and bool(_SPEC_KEYS & set(norm))


def _pairs(
    norm: NormRule, where: str | Sequence[str]
) -> list[tuple[str | Sequence[str], NormChoice]]:
    if norm is None:
        return [("all", NormChoice(None))]
    if isinstance(norm, str):
        entries = [where] if isinstance(where, str) else where
        meant = rules_of(norm) if {"all", "encoder"} & set(entries) else {"all": norm}
        return [(at, NormChoice(name, rest=at == "late")) for at, name in meant.items()]
    if _is_spec(norm):
        if set(norm) == {"name"}:
            return _pairs(str(norm["name"]), where)
        return [("all", _choice(dict(norm), forced=False))]
    if not norm:
        raise ConversionError("norm: no rules; name a norm, e.g. {early: cin, late: dsbn}")
    return [(pattern, _rule(rule)) for pattern, rule in norm.items()]


def _rule(rule: Any) -> NormChoice:
    if rule is None:
        return NormChoice(None)
    return _choice({"name": rule} if isinstance(rule, str) else dict(rule), forced=True)


def _choice(options: dict[str, Any], forced: bool) -> NormChoice:
    name = options.pop("name", None)
    if name is None:
        try:
            name = f"{options.pop('statistics')}*{options.pop('modulation')}"
        except KeyError as error:
            raise ConversionError(
                f"norm: {error} is missing; give 'name', or both 'statistics' and 'modulation'"
            ) from None
    return NormChoice(str(name), options, forced)


def fit_choices(
    choices: Mapping[str, NormChoice],
    kinds: Mapping[str, NormKind],
    inputs: Mapping[str, LayerInput],
) -> dict[str, Fit]:
    """What each layer gets: the choice where it is meant for such layers, else the layer's kin.

    A name is meant for layers of its own family (``dsbn`` for batch norms). Layers of other
    families get their kin, unless the network has no layer of that family, or a rule says which
    layers it means: then every layer gets the named norm. Maps of one element and rows that are
    parts of images get the statistics of the layer's kin in place of instance statistics.
    """
    fits = {}
    for path, choice in choices.items():
        kind = kinds[path]
        if choice.name is None:
            fits[path] = Fit(kind.kin, {})
        elif not (choice.forced or _is_meant(choice, kind)) and _has_home(choice, kinds):
            note = f"{choice.name} is for other layers, this one keeps its function"
            fits[path] = Fit(kind.kin, {}, note)
        else:
            fits[path] = _instead_of_instance(choice.name, choice.options, kind, inputs.get(path))
    return fits


def _is_meant(choice: NormChoice, kind: NormKind) -> bool:
    assert choice.name is not None
    return kind.family in _HOMES.get(statistics_of(choice.name), {"batch"})


def _has_home(choice: NormChoice, kinds: Mapping[str, NormKind]) -> bool:
    return choice.rest or any(_is_meant(choice, kind) for kind in kinds.values())


def statistics_of(name: str) -> str:
    """The statistics of a catalogue name or of two halves."""
    return CATALOGUE[name].statistics if name in CATALOGUE else name.partition("*")[0].strip()


def _is_instance(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the norm, or a part of it, takes moments over the pixels of one channel."""
    statistics = statistics_of(name)
    if name in CATALOGUE:
        options = {**CATALOGUE[name].options, **options}
    parts = options.get("parts") or ["instance"] if statistics == "mixed" else [statistics]
    return bool({"instance", "thumbnail"} & set(parts))


def _instead_of_instance(
    name: str, options: Mapping[str, Any], kind: NormKind, seen: LayerInput | None
) -> Fit:
    """The named norm, or the kin's statistics where instance ones make no sense, and why."""
    unfit = seen is not None and (seen.size == 1 or seen.folded)
    if not unfit or kind.family == "instance" or not _is_instance(name, options):
        return Fit(name, options)
    modulation = name.partition("*")[2] or CATALOGUE[name].modulation
    why = "its map has one element" if seen and seen.size == 1 else "its rows are parts of images"
    new = f"{statistics_of(kind.kin)}*{modulation.strip()}"
    kept = {key: value for key, value in options.items() if key in norm_options(new)}
    return Fit(new, kept, f"asked for {name}, but {why}")
