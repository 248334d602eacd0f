"""Named norms: each is a row that says which statistics and which modulation it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from domainnorm.errors import DomainNormError, UnknownNameError, unknown
from domainnorm.ranges import problem_of
from domainnorm.registry import MODULATIONS, STATISTICS, Entry, Parameter

if TYPE_CHECKING:  # light commands read the catalogue without torch
    from domainnorm.norms.layer import ConditionalNorm
    from domainnorm.slot import ConditionSlot


@dataclass(frozen=True)
class NormSpec:
    """A norm as statistics × modulation.

    Args:
        name: Its name in recipes.
        halves: ``"statistics*modulation"``: which moments normalize a sample, and where its scale
            and shift come from.
        paper: Authors, venue, arXiv id, and the place in the paper as far as it was checked.
        use: When to use it, in one line.
        options: Options of the halves that define this norm; a caller's own override them.
        late: Norm of the late layers when the norm is chosen for the whole network: a name, or
            ``kin``, the conditional norm that keeps the layer's function. None: the same norm.
    """

    name: str
    halves: str
    paper: str
    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    late: str | None = None

    @property
    def statistics(self) -> str:
        """Which moments normalize a sample."""
        return self.halves.partition("*")[0]

    @property
    def modulation(self) -> str:
        """Where its scale and shift come from."""
        return self.halves.partition("*")[2]


_ROWS = (
    NormSpec(
        "in",
        "instance*shared",
        "Ulyanov et al. 2016, arXiv:1607.08022, eq. 2",
        "removes the contrast and colour of each image; one scale and shift for all domains",
    ),
    NormSpec(
        "cin",
        "instance*table",
        "Dumoulin et al., ICLR 2017, arXiv:1610.07629, eq. 5",
        "removes style per image, restores it per domain; only early layers of BN networks",
        late="kin",
    ),
    NormSpec(
        "bn",
        "batch*shared",
        "Ioffe and Szegedy, ICML 2015, arXiv:1502.03167, alg. 1",
        "the unconditioned layer, for comparison",
    ),
    NormSpec(
        "cbn",
        "batch*table",
        "de Vries et al., NeurIPS 2017, arXiv:1707.00683, eq. 3",
        "only scale and shift differ by domain; for similar domains with few images each",
    ),
    NormSpec(
        "dsbn",
        "domain*table",
        "Chang et al., CVPR 2019, arXiv:1906.03950, eq. 2",
        "a batch norm for each domain; exact at conversion, the safe default on BN networks",
    ),
    NormSpec(
        "auto_bn",
        "domain*shared",
        "Carlucci et al. (AutoDIAL), ICCV 2017, arXiv:1704.08082, eq. 1 and 2",
        "between bn and dsbn: domains share moments in channels where they are similar",
        {"share": "unlike"},
    ),
    NormSpec(
        "ibn_a",
        "mixed*shared",
        "Pan et al. (IBN-Net), ECCV 2018, arXiv:1807.09441, sec. 3 (IBN-a)",
        "removes style in half of the channels of early layers; needs no domain labels",
        {"parts": ["instance", "batch"], "gate": "split"},
        late="bn",
    ),
    NormSpec(
        "ibn_b",
        "instance*shared",
        "Pan et al. (IBN-Net), ECCV 2018, arXiv:1807.09441, sec. 3 (IBN-b)",
        "the same layer as 'in'; the paper puts it after the residual add of the first blocks",
    ),
    NormSpec(
        "bin",
        "mixed*shared",
        "Nam and Kim, NeurIPS 2018, arXiv:1805.07925, sec. 3",
        "each channel learns how much style to drop; exact at conversion of BN networks",
        {"parts": ["instance", "batch"], "gate": "learned"},
    ),
    NormSpec(
        "sn",
        "mixed*shared",
        "Luo et al., ICLR 2019, arXiv:1806.10779, sec. 2",
        "each layer learns which moments it needs; for training from scratch",
        {"parts": ["instance", "layer", "batch"], "gate": "softmax"},
    ),
    NormSpec(
        "iabn",
        "mixed*shared",
        "Gong et al. (NOTE), NeurIPS 2022, arXiv:2208.05117, sec. 3.1 (IABN)",
        "corrects the moments for unusual images by their own; for streams, with method 'note'",
        {"parts": ["instance", "batch"], "gate": "shrink"},
    ),
    NormSpec(
        "alpha_bn",
        "mixed*shared",
        "You et al., 2021, arXiv:2110.04065, eq. 2 (α-BN)",
        "interpolates source and target moments at test time; for small batches of a new domain",
        {"parts": ["batch"], "gate": "fixed"},
    ),
    NormSpec(
        "cluster_in",
        "cluster*shared",
        "Deecke et al., ICLR 2019, arXiv:1810.05466, sec. 3; Matsuura and Harada, AAAI 2020, "
        "arXiv:1911.07661, sec. 3",
        "samples of similar style share moments; for domains without labels",
    ),
    NormSpec(
        "tin",
        "thumbnail*table",
        "Chen et al., AAAI 2022, arXiv:2103.11784, section Thumbnail Instance Normalization (TIN)",
        "cin for images in tiles: all tiles use the moments of a thumbnail, so no seams appear",
    ),
    NormSpec(
        "ln",
        "layer*shared",
        "Ba et al., 2016, arXiv:1607.06450, eq. 4",
        "the unconditioned layer of transformers and ConvNeXt, for comparison",
    ),
    NormSpec(
        "cln",
        "layer*table",
        "Ba et al., 2016, arXiv:1607.06450, eq. 4; rows as in Dumoulin et al., arXiv:1610.07629",
        "scale and shift per domain for networks with layer norm; exact at conversion",
    ),
    NormSpec(
        "gn",
        "group*shared",
        "Wu and He, ECCV 2018, arXiv:1803.08494, eq. 7",
        "the unconditioned layer, for comparison; does not depend on the batch",
    ),
    NormSpec(
        "cgn",
        "group*table",
        "Wu and He, ECCV 2018, arXiv:1803.08494, eq. 7; rows as in Dumoulin et al., "
        "arXiv:1610.07629",
        "scale and shift per domain for networks with group norm, or for batches of one",
    ),
    NormSpec(
        "rms",
        "rms*shared",
        "Zhang and Sennrich, NeurIPS 2019, arXiv:1910.07467, eq. 4",
        "the unconditioned layer, for comparison",
    ),
    NormSpec(
        "crms",
        "rms*table",
        "Zhang and Sennrich, NeurIPS 2019, arXiv:1910.07467, eq. 4; rows as in Dumoulin et al., "
        "arXiv:1610.07629",
        "scale and shift per domain for networks with RMS norm; exact at conversion",
    ),
    NormSpec(
        "adain",
        "instance*style",
        "Huang and Belongie, ICCV 2017, arXiv:1703.06868, eq. 8",
        "features get the moments of a style image: restyles a domain without learning",
    ),
    NormSpec(
        "spade",
        "batch*spatial",
        "Park et al., CVPR 2019, arXiv:1903.07291, eq. 1",
        "scale and shift per pixel, from a map given with each image: mask, layout, sensor map",
    ),
    NormSpec(
        "film",
        "batch*hyper",
        "Perez et al., AAAI 2018, arXiv:1709.07871, eq. 1 and 2",
        "scale and shift from a vector (metadata, text, an encoder's output), also an unseen one",
    ),
)

CATALOGUE: dict[str, NormSpec] = {row.name: row for row in _ROWS}


def list_norms() -> list[str]:
    """Names of the catalogue, for `create_norm` and a recipe's ``norm``."""
    return list(CATALOGUE)


def rules_of(name: str) -> dict[str, str | None]:
    """The norm of each region of a network; None for the conditional form of each layer.

    Instance statistics help in early layers, which hold style, and destroy late features.
    """
    late = CATALOGUE[name].late if name in CATALOGUE else None
    if late is None:
        return {"all": name}
    return {"early": name, "late": None if late == "kin" else late}


def create_norm(
    name: str,
    num_features: int,
    num_domains: int = 1,
    *,
    slot: ConditionSlot | None = None,
    path: str = "norm",
    **options: Any,
) -> ConditionalNorm:
    """Make a norm from the catalogue, or from both halves spelled ``"statistics*modulation"``.

    Args:
        name: A name of `list_norms` (``"cin"``), or two halves (``"instance*table"``).
        num_features: C.
        num_domains: D.
        slot: Shared by all norms of one model; a new one when None.
        path: Module path, for messages.
        **options: Keywords of the statistics or the modulation (``eps``, ``momentum``, …); each
            goes to the half that has it.

    Raises:
        UnknownNameError: No such norm or half; the message gives the nearest.
        DomainNormError: An option that neither half has, a value that an option cannot have, or
            halves that do not fit each other.

    Example:
        >>> from domainnorm.condition import Condition
        >>> norm = create_norm("dsbn", 64, num_domains=3)
        >>> with norm.slot.holding(Condition(domain=labels)):
        ...     y = norm(x)
    """
    from domainnorm.norms.layer import ConditionalNorm  # noqa: PLC0415

    statistics, modulation = _halves(name)
    for argument, number in (("num_features", num_features), ("num_domains", num_domains)):
        if number < 1:
            raise DomainNormError(f"norm '{name}': {argument}: got {number}, expected at least 1")
    if name in CATALOGUE:
        options = {**CATALOGUE[name].options, **options}
    _check_pair(name, statistics, modulation, options)
    halves = [
        half.load()(num_features, num_domains, **_own(half, options))
        for half in (statistics, modulation)
    ]
    return ConditionalNorm(halves[0], halves[1], slot, path, num_features)


def norm_options(name: str) -> dict[str, Parameter]:
    """The options of a norm, those of its statistics and of its modulation, by name."""
    statistics, modulation = _halves(name)
    return {**statistics.parameters, **modulation.parameters}


def _check_pair(name: str, statistics: Entry, modulation: Entry, options: dict[str, Any]) -> None:
    wanted = norm_options(name)
    tokens = bool(options.get("tokens"))
    if tokens and "tokens" not in wanted:
        raise DomainNormError(
            f"norm '{name}': {statistics.name} statistics are over the pixels of a channel, "
            "there is no form for tokens; take layer or rms statistics (norm 'cln' or 'crms')"
        )
    if tokens and modulation.name in ("style", "spatial"):
        raise DomainNormError(
            f"norm '{name}': {modulation.name} modulation needs feature maps, not tokens; "
            "take another modulation (norm 'cln'), or leave tokens=False"
        )
    for option, value in options.items():
        if option not in wanted:
            raise DomainNormError(f"norm '{name}': " + unknown("option", option, wanted))
        if problem := problem_of(wanted[option], value):
            raise DomainNormError(f"norm '{name}': {option}: {problem}")


def _halves(name: str) -> tuple[Entry, Entry]:
    spelled = CATALOGUE[name].halves if name in CATALOGUE else name
    statistics, star, modulation = spelled.partition("*")
    if not star:
        raise UnknownNameError("norm", name, CATALOGUE)
    return STATISTICS.entry(statistics.strip()), MODULATIONS.entry(modulation.strip())


def _own(half: Entry, options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in half.parameters}
