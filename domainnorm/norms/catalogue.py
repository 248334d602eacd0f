"""Named norms: each is a row that says which statistics and which modulation it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NormSpec:
    """A norm as statistics × modulation.

    Args:
        name: What a recipe writes.
        statistics: Which moments normalize a sample.
        modulation: Where its scale and shift come from.
        paper: Authors, venue, arXiv id, equation.
        use: When to take it, in one line.
        options: Options of the halves that make it this norm; a caller's own come before them.
    """

    name: str
    statistics: str
    modulation: str
    paper: str
    use: str
    options: Mapping[str, Any] = field(default_factory=dict)


_ROWS = (
    NormSpec(
        "in",
        "instance",
        "shared",
        "Ulyanov et al. 2016, arXiv:1607.08022, eq. 2",
        "removes each image's own contrast and colour; one scale and shift for all domains",
    ),
    NormSpec(
        "cin",
        "instance",
        "table",
        "Dumoulin et al., ICLR 2017, arXiv:1610.07629, eq. 5",
        "style removed per image, restored per domain; on BN networks early layers only",
    ),
    NormSpec(
        "bn",
        "batch",
        "shared",
        "Ioffe and Szegedy, ICML 2015, arXiv:1502.03167, alg. 1",
        "the unconditioned layer, for comparison",
    ),
    NormSpec(
        "cbn",
        "batch",
        "table",
        "de Vries et al., NeurIPS 2017, arXiv:1707.00683, eq. 3",
        "domains with alike statistics and few images each: only scale and shift differ",
    ),
    NormSpec(
        "dsbn",
        "domain",
        "table",
        "Chang et al., CVPR 2019, arXiv:1906.03950, eq. 2",
        "every domain has its own batch norm; exact at conversion, the safe default on BN networks",
    ),
    NormSpec(
        "adain",
        "instance",
        "style",
        "Huang and Belongie, ICCV 2017, arXiv:1703.06868, eq. 8",
        "features get the moments of a style image: restyle one domain as another, nothing learned",
    ),
    NormSpec(
        "spade",
        "batch",
        "spatial",
        "Park et al., CVPR 2019, arXiv:1903.07291, eq. 1",
        "what differs has a place in the image: masks, layouts, sensor maps given with each image",
    ),
    NormSpec(
        "film",
        "batch",
        "hyper",
        "Perez et al., AAAI 2018, arXiv:1709.07871, eq. 1 and 2",
        "conditions that are vectors (metadata, text, an encoder's output), unseen ones included",
    ),
)

CATALOGUE: dict[str, NormSpec] = {row.name: row for row in _ROWS}
