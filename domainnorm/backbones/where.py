"""Which layers a rule means: ``all``, ``stem``, ``early``, ``late`` or globs over module paths."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from domainnorm.errors import ConversionError

REGIONS = ("all", "stem", "early", "late")
# Feature maps down to 1/8 of the image are "early": stem, layer1 and layer2 of a ResNet, stem and
# the first three stages of an EfficientNet, where instance statistics help and do not hurt.
_EARLY_REDUCTION = 8


class Regions:
    """The norm layers of a network by region.

    ``early`` reaches to the end of the last feature map with a reduction of 8 or less, as timm's
    ``feature_info`` tells; ``stem`` to the end of the first one. A network without ``feature_info``
    is cut in the middle of its list of norm layers, and its stem is the first of them.

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
                    f"({sample}, …); use {', '.join(REGIONS)} or a glob over these paths"
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
        return {path for path in self.paths if fnmatchcase(path, pattern)}


def feature_maps(network: nn.Module) -> list[tuple[str, int]]:
    """(module path, reduction) of the feature maps that timm declares, finest first."""
    declared = getattr(network, "feature_info", None) or []
    known = {path for path, _ in network.named_modules()}
    found = []
    for item in declared:
        if isinstance(item, dict) and item.get("module") in known and "reduction" in item:
            found.append((str(item["module"]), int(item["reduction"])))
    return sorted(found, key=lambda pair: pair[1])
