"""Which layers a rule means: a region of the network, or globs over module paths."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from domainnorm.errors import ConversionError

REGIONS = ("all", "stem", "early", "late")
PARTS = ("encoder", "decoder")  # children of segmentation networks
# Feature maps down to 1/8 of the image are "early": stem, layer1 and layer2 of a ResNet, stem and
# the first three stages of an EfficientNet, where instance statistics help and do not hurt.
_EARLY_REDUCTION = 8


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
            self.early = self._up_to(order, early[-1])
            self.stem = self._up_to(order, early[0])
        else:
            self.early = set(self.paths[: (len(self.paths) + 1) // 2])
            self.stem = set(self.paths[:1])

    def _up_to(self, order: list[str], last: str) -> set[str]:
        inside = [i for i, path in enumerate(order) if path == last or path.startswith(f"{last}.")]
        place = {path: i for i, path in enumerate(order)}
        return {path for path in self.paths if place[path] <= inside[-1]}

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
        if pattern == "all":
            return set(self.paths)
        if pattern == "stem":
            return self.stem
        if pattern == "early":
            return self.early
        if pattern == "late":
            return set(self.paths) - self.early
        if pattern in PARTS:
            return {path for path in self.paths if path.startswith(f"{pattern}.")}
        return {path for path in self.paths if fnmatchcase(path, pattern)}


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
