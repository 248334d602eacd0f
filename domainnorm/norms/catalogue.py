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
        name: What a recipe writes.
        halves: ``"statistics*modulation"``: which moments normalize a sample, and where its scale
            and shift come from.
        paper: Authors, venue, arXiv id, and the place in it as closely as it was looked up.
        use: When to take it, in one line.
        options: Options of the halves that make it this norm; a caller's own come before them.
        late: What late layers of a network get where it is named for all of them: a name, or
            ``kin``, what keeps their function. None: the same.
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
        "removes each image's own contrast and colour; one scale and shift for all domains",
    ),
    NormSpec(
        "cin",
        "instance*table",
        "Dumoulin et al., ICLR 2017, arXiv:1610.07629, eq. 5",
        "style removed per image, restored per domain; on BN networks early layers only",
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
        "domains with alike statistics and few images each: only scale and shift differ",
    ),
    NormSpec(
        "dsbn",
        "domain*table",
        "Chang et al., CVPR 2019, arXiv:1906.03950, eq. 2",
        "every domain has its own batch norm; exact at conversion, the safe default on BN networks",
    ),
    NormSpec(
        "auto_bn",
        "domain*shared",
        "Carlucci et al. (AutoDIAL), ICCV 2017, arXiv:1704.08082, eq. 1 and 2",
        "between bn and dsbn: domains share moments in the channels in which they look alike",
        {"share": "unlike"},
    ),
    NormSpec(
        "ibn_a",
        "mixed*shared",
        "Pan et al. (IBN-Net), ECCV 2018, arXiv:1807.09441, sec. 3 (IBN-a)",
        "half the channels of early layers lose style: generalization without domain labels",
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
        "images unlike the rest are normalized by themselves; for streams, with method 'note'",
        {"parts": ["instance", "batch"], "gate": "shrink"},
    ),
    NormSpec(
        "alpha_bn",
        "mixed*shared",
        "You et al., 2021, arXiv:2110.04065, eq. 2 (α-BN)",
        "source and target moments interpolated at test time; for small batches of a new domain",
        {"parts": ["batch"], "gate": "fixed"},
    ),
    NormSpec(
        "cluster_in",
        "cluster*shared",
        "Deecke et al., ICLR 2019, arXiv:1810.05466, sec. 3; Matsuura and Harada, AAAI 2020, "
        "arXiv:1911.07661, sec. 3",
        "domains exist but are not labelled: samples of similar style share moments",
    ),
    NormSpec(
        "tin",
        "thumbnail*table",
        "Chen et al., AAAI 2022, arXiv:2103.11784, section Thumbnail Instance Normalization (TIN)",
        "cin for images that are processed in tiles: the thumbnail's moments, so no seams",
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
        "networks with layer norm: scale and shift per domain, exact at conversion",
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
        "networks with group norm, or batches of one: scale and shift per domain",
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
        "networks with RMS norm: scale and shift per domain, exact at conversion",
    ),
    NormSpec(
        "adain",
        "instance*style",
        "Huang and Belongie, ICCV 2017, arXiv:1703.06868, eq. 8",
        "features get the moments of a style image: restyle one domain as another, nothing learned",
    ),
    NormSpec(
        "spade",
        "batch*spatial",
        "Park et al., CVPR 2019, arXiv:1903.07291, eq. 1",
        "what differs has a place in the image: masks, layouts, sensor maps given with each image",
    ),
    NormSpec(
        "film",
        "batch*hyper",
        "Perez et al., AAAI 2018, arXiv:1709.07871, eq. 1 and 2",
        "conditions that are vectors (metadata, text, an encoder's output), unseen ones included",
    ),
)

CATALOGUE: dict[str, NormSpec] = {row.name: row for row in _ROWS}


def list_norms() -> list[str]:
    """Names of the catalogue, for `create_norm` and a recipe's ``norm``."""
    return list(CATALOGUE)


def rules_of(name: str) -> dict[str, str | None]:
    """What a name means for the regions of a network, None for each layer's kin.

    Instance statistics help early, where style lives, and destroy late features.
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
        **options: Keywords of the statistics or the modulation (``eps``, ``momentum``, …); those
            that one half does not have go to the other.

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
