"""What the norms of one model know of a batch, and what becomes of samples of unknown domains.

A caller tells the domain of each sample, or an encoder estimates it (`Estimate`). `as_condition`
checks what was told and makes the `Condition` that norms read; `domainnorm.slot` brings it to them.

Samples of **unseen** domains have an unknown name, the label −1, or come in a call without
``domain``. They are errors in training. In evaluation a policy (`Unseen`) decides, also in batches
with known domains:

- ``error``: refused.
- ``mean``: the mixture of all domains in equal parts, moments of the mixture distribution and
  the mean of scales and shifts (the learned row for unknown domains, where there is one).
- ``nearest``: the domain whose moments are nearest, see `domainnorm.slot.find_nearest`.
- ``batch``: scale and shift as in ``mean``; layers with running moments use those of the unseen
  samples in this batch. No state changes.
- ``estimate``: the domain that the attached encoder finds most probable.
- ``mixture``: all domains that the encoder knows, by its soft weights: scales and shifts are
  weighted sums, moments those of the mixture distribution.

A second policy (`Far`) is for estimated samples that the encoder finds near no known domain:
``mean`` and ``batch`` as above, or None, which treats them like others. The names of all policies
are in `domainnorm.ranges`, which recipes read without torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.errors import ConditionError, unknown
from domainnorm.ranges import ESTIMATED, Conditioned, Far, Unseen

UNSEEN = -1  # the label of a sample of an unseen domain
Pair: TypeAlias = tuple[Tensor, Tensor]  # mean and biased variance
RecordedMoments: TypeAlias = dict[str, Pair]  # by module path, of each sample and channel, (N, C)
Domain: TypeAlias = Tensor | Sequence[str] | str | int | None  # as a caller may say it
T = TypeVar("T")


class Estimate(NamedTuple):
    """What an encoder says of a batch.

    Args:
        embedding: (N, E).
        weights: Soft weights over the known domains, (N, D); rows sum to one.
        distance: Squared Mahalanobis distance to each domain, (N, D); infinite for domains that
            the encoder has seen no image of.
        is_known: Whether the nearest domain is near enough for an image of a known one, (N,).
    """

    embedding: Tensor
    weights: Tensor
    distance: Tensor
    is_known: Tensor

    @property
    def domain(self) -> Tensor:
        """Labels (N,) of the most probable domains."""
        return self.weights.argmax(1)


@dataclass(frozen=True)
class Condition:
    """What is known of each sample of one batch; a norm raises when it needs what is not given.

    Its tensors are not written to afterwards: what norms derive from them is kept.

    Args:
        domain: Labels, (N,) int64, in ``0..D-1``, or −1 where ``unseen`` says what that means.
        weights: Soft domain weights, (N, D), rows sum to one; instead of ``domain``.
        embedding: (N, E).
        map: Layout or guidance map, (N, M, H, W), of any size.
        style: Moments of a style image by layer path, from `ConditionSlot.recording`.
        thumbnail: Moments of the small copy of the full image by layer path, likewise.
        chance: Uniform numbers in [0, 1), (N,): layers with condition dropout ``p`` drop the
            domain of samples below ``p``, so that a sample loses it in all layers or in none.
        unseen: The policy for labels of −1 (in evaluation); empty where there is none.
        far: Samples that an encoder finds near no known domain, (N,) bool, where ``unseen`` says
            what that means for them too; their ``weights`` are equal parts.
        settle: What gives the condition of this pass from the input of the first norm, (N, C, *),
            where it is not known before; the norm puts the result in the place of this one.
    """

    domain: Tensor | None = None
    weights: Tensor | None = None
    embedding: Tensor | None = None
    map: Tensor | None = None
    style: RecordedMoments | None = None
    thumbnail: RecordedMoments | None = None
    chance: Tensor | None = None
    unseen: str = ""
    far: Tensor | None = None
    settle: Callable[[Tensor], Condition] | None = None
    _derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Any, derive: Callable[[], T]) -> T:
        """What ``derive`` returns, computed by the first layer that asks for ``key`` (eager only).

        Made outside inference mode, so that a later forward pass with gradients can use it.
        """
        if key not in self._derived:
            with torch.inference_mode(False), torch.no_grad():
                self._derived[key] = derive()
        found: T = self._derived[key]
        return found

    @property
    def num_samples(self) -> int | None:
        """N, the samples this condition describes; None when it holds nothing per sample."""
        for given in (self.domain, self.weights, self.embedding, self.map):
            if given is not None:
                return given.shape[0]
        return None

    @property
    def unknown(self) -> Tensor:
        """Whether each sample is of an unseen domain, (N, 1)."""
        if self.far is not None:
            return self.far[:, None]
        assert self.domain is not None
        return (self.domain < 0)[:, None]

    def select(self, table: Tensor) -> Tensor:
        """The row of every sample: ``table`` (D, C) -> (N, C); rows are mixed by soft weights.

        A sample of an unseen domain gets the mean of all rows.

        Raises:
            ConditionError: Neither domain labels nor weights are given, or a label has no row.
        """
        if self.domain is not None:
            if self.unseen:
                rows = table.index_select(0, self.domain.clamp(min=0))
                return torch.where(self.unknown, table.mean(0), rows)
            try:
                return table.index_select(0, self.domain)
            except IndexError:
                worst = next(v for v in self.domain.tolist() if not 0 <= v < len(table))
                raise ConditionError(out_of_range(worst, len(table))) from None
        if self.weights is not None:
            return weighted_rows(self.weights.to(table.dtype), table)
        raise ConditionError("needs the domain of each sample; pass domain= or weights=")

    def repeat(self, times: int) -> Condition:
        """The condition of ``times`` consecutive rows per sample."""
        if times == 1:
            return self
        return self._each(lambda value: value.repeat_interleave(times, dim=0))

    def of_first(self, rows: int) -> Condition:
        """The condition of ``rows`` samples that are all as the first one."""
        same = self._each(lambda value: value[:1].expand(rows, *value.shape[1:]))
        images: dict[str, Any] = {
            name: {path: (mean[:1], var[:1]) for path, (mean, var) in recorded.items()}
            for name in ("style", "thumbnail")
            if (recorded := getattr(self, name)) is not None
        }
        return replace(same, settle=None, **images)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        given: dict[str, Any] = {
            name: change(value)
            for name in ("domain", "weights", "embedding", "map", "chance", "far")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **given)

    def with_batch_moments(self, given: Pair, own: Pair, size: int) -> Pair:
        """Moments of each sample, those of unseen domains pooled over all of them in the batch.

        ``mean = avg m[n]``, ``var = avg (v[n] + (m[n] - mean)²)`` over the samples n of unseen
        domains; ``given``, (N or 1, C), stays if they have a single value per channel in all.
        ``own`` are those over the ``size`` pixels of each sample, (N, C). Returns (N, C) each.
        """
        unknown, (own_mean, own_var) = self.unknown, own
        count = unknown.sum()
        share = unknown.to(own_mean.dtype) / count.clamp(min=1)
        mean = (share * own_mean).sum(0)
        var = (share * (own_var + (own_mean - mean).square())).sum(0)
        replaced = unknown & (count * size > 1)
        return (
            torch.where(replaced, mean, given[0].to(mean.dtype)),
            torch.where(replaced, var, given[1].to(var.dtype)),
        )

    def all_known(self) -> Condition:
        """The condition without a policy, if no label is −1; in compiled code none may be."""
        assert self.domain is not None
        # On a GPU a policy is set whether there are any or not; looking costs a synchronization,
        # which is less than an estimate that nobody needs.
        unseen = not torch.compiler.is_compiling() and bool((self.domain < 0).any())
        return self if unseen else replace(self, unseen="")

    def estimated(self, estimate: Estimate, far: Far | None = None) -> Condition:
        """The condition with what an encoder says in the place of unseen domains.

        Its policy ``unseen`` is ``estimate`` or ``mixture``; ``far`` says what becomes of images
        near no known domain, None: the same as of the others.
        """
        assert self.domain is not None
        known = self.domain >= 0
        if self.unseen == "estimate" and far is None:
            domain = torch.where(known, self.domain, estimate.domain)
            return replace(self, domain=domain, unseen="")
        weights = told_weights(self.domain, estimate, soft=self.unseen == "mixture")
        found = replace(self, domain=None, weights=weights, unseen="")
        return found if far is None else found.with_far(~known & ~estimate.is_known, far)

    def estimated_within(
        self, judge: Callable[[Tensor], Estimate], far: Far | None = None
    ) -> Condition:
        """The condition that is `estimated` in the pass, by what the first norm gets to see."""

        def settle(maps: Tensor) -> Condition:
            # A recompute of gradient checkpointing reads the settled condition, and has to save
            # what the forward pass saved: no gradient goes through the estimate.
            with torch.no_grad():
                estimate = judge(maps)
            return replace(self, settle=None).estimated(estimate, far)

        return replace(self, settle=settle)

    def with_far(self, far: Tensor, policy: Far) -> Condition:
        """The condition, which has weights, with a policy for the samples ``far``, (N,) bool."""
        assert self.weights is not None
        # On a GPU the policy is set whether there are any or not, without a synchronization.
        looked = far.device.type == "cpu" and not torch.compiler.is_compiling()
        if looked and not bool(far.any()):
            return self
        equal = 1 / self.weights.shape[1]
        weights = self.weights.masked_fill(far[:, None], equal)
        return replace(self, weights=weights, far=far, unseen=policy)


def out_of_range(label: int, num_domains: int) -> str:
    """The message about a label that has no row."""
    return f"domain: label {label} is out of range, expected 0 to {num_domains - 1}"


def weighted_rows(weights: Tensor, rows: Tensor) -> Tensor:
    """``weights @ rows``, (N, K) and (K, C), in their own dtype under autocast as well.

    Autocast would round moments to bfloat16, and differences of squares are made of them.
    """
    if not torch.is_autocast_enabled(rows.device.type):
        return weights @ rows
    with torch.autocast(rows.device.type, enabled=False):
        return weights @ rows


def told_weights(domain: Tensor, estimate: Estimate, *, soft: bool) -> Tensor:
    """Weights (N, D): all on the label of a sample, or what the encoder says where it is −1.

    ``soft``: the encoder's weights there; otherwise all on its most probable domain.
    """
    num_domains = estimate.weights.shape[1]
    found = estimate.weights
    if not soft:
        found = F.one_hot(estimate.domain, num_domains).to(found)
    given = F.one_hot(domain.clamp(min=0), num_domains).to(found)
    return torch.where((domain >= 0)[:, None], given, found)


def conditioned(
    domain: Tensor, estimate: Estimate, condition: Conditioned, known: Tensor, far: Far | None
) -> dict[str, Tensor]:
    """What the norms get to know of a batch in a test, as keywords of `DomainModel.forward`.

    Args:
        domain: True labels, (N,).
        estimate: Of the same images.
        condition: ``id``: the labels; ``estimate``: the most probable domains; ``mixture``: soft
            weights; ``id_or_estimate``: the labels of domains that the encoder has seen images of,
            the most probable of the others elsewhere; ``embedding``: the labels, beside the
            embedding that a model with its encoder end to end computes.
        known: Which domains the encoder has seen images of, (D,) bool.
        far: The policy of the model for images near no known domain.
    """
    if condition in ("id", "embedding"):
        return {"domain": domain}
    told = torch.full_like(domain, UNSEEN)
    if condition == "id_or_estimate":
        told = torch.where(known[domain], domain, told)
    if far is None:
        if condition == "mixture":
            return {"weights": estimate.weights}
        return {"domain": torch.where(told == UNSEEN, estimate.domain, told)}
    weights = told_weights(told, estimate, soft=condition == "mixture")
    is_far = (told == UNSEEN) & ~estimate.is_known
    return {"weights": weights.masked_fill(is_far[:, None], 0)}


def check_policy(
    key: str, policy: str, *, running: bool, by_domain: bool, has_encoder: bool
) -> None:
    """Refuse a policy that a model cannot carry out.

    Args:
        key: ``unseen`` or ``far``.
        policy: The one of that kind.
        running: Whether some of its norms have running moments.
        by_domain: Whether some have running moments of each domain.
        has_encoder: Whether it has an encoder.
    """
    of_far = key == "far"
    names = get_args(Far if of_far else Unseen)
    if policy not in names:
        raise ConditionError(
            unknown(f"policy for {'far images' if of_far else 'unseen domains'}", policy, names)
        )
    if (of_far or policy in ESTIMATED) and not has_encoder:
        needs = f"'{policy}' needs a domain encoder"
        tells = "only an encoder finds images that are near no known domain"
        raise ConditionError(
            f"{key}: {tells if of_far else needs}, and this model has none; model.attach_encoder("
            "create_encoder('style', ...)) first, or 'encoder: style' in a recipe"
        )
    if policy == "nearest" and not by_domain:
        raise ConditionError(
            "unseen: 'nearest' compares the moments of domains, but no norm of this model has "
            "them; use 'mean', or a norm with such moments, for example 'dsbn'"
        )
    if policy == "batch" and not running:
        raise ConditionError(
            f"{key}: 'batch' replaces running moments, but no norm of this model has any; use "
            "'mean', which is the same here"
        )


def as_condition(
    domain: Domain,
    weights: Tensor | None,
    domain_names: Sequence[str],
    image: Tensor,
    *,
    unconditional: bool = False,
    unseen: str = "",
    far: Far | None = None,
    **further: Any,
) -> Condition:
    """Check what a caller passed and make the condition of this batch.

    Args:
        domain: Labels (N,) integer tensor, a name or label for all samples, or a name per sample.
        weights: Soft weights (N, D), instead of ``domain``.
        domain_names: The model's domains; a label is a position in this list.
        image: The batch, (N, ...); gives N and the device.
        unconditional: Whether the model can do without the domain (`DomainModel.unconditional`).
        unseen: What is done about samples of unseen domains, see `Condition`: those of an unknown
            name, those labelled −1, and all where nothing is given; empty where they are errors.
        far: The policy for images whose weights are all zeros, near no known domain; None where
            they are errors.
        **further: Other fields of `Condition`; with one of them, ``domain`` may be left out.

    Raises:
        ConditionError: Nothing given for several domains, both given, wrong length, labels that
            are not integers, labels out of range, an unknown name, weights that are not (N, D)
            with rows that sum to one, or an embedding or map of another batch size.
    """
    given = {name: value for name, value in further.items() if value is not None}
    for name in ("embedding", "map"):
        if name in given:
            given[name] = _checked_rows(name, given[name], image)
    if domain is None and weights is None and len(domain_names) > 1:
        if unconditional and not unseen:
            unseen = "mean"  # what norms without a row for such samples do
        if unseen:
            domain = torch.full((image.shape[0],), UNSEEN, device=image.device)
        elif given:
            return Condition(**given)
    if weights is not None:
        if domain is not None:
            raise ConditionError("condition: both domain and weights were given; give one of them")
        shape = image.shape[0], len(domain_names)
        weights = _checked_weights(weights, shape, far is not None).to(image.device)
        condition = Condition(weights=weights, **given)
        return condition if far is None else condition.with_far(weights.sum(1) == 0, far)
    condition = _domain_condition(domain, domain_names, image, bool(unseen))
    if unseen and condition.domain is not None and _has_unseen(condition.domain):
        given["unseen"] = unseen
    return replace(condition, **given)


def _has_unseen(domain: Tensor) -> bool:
    """Whether there may be samples of unseen domains, without a synchronization to find out."""
    if domain.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return bool((domain == UNSEEN).any())


def _checked_rows(name: str, value: Tensor, image: Tensor) -> Tensor:
    axes = {"embedding": 2, "map": image.ndim}[name]
    if value.shape[:1] != image.shape[:1] or value.ndim != axes:
        raise ConditionError(
            f"{name}: got shape {tuple(value.shape)}, expected {axes} axes and the "
            f"{image.shape[0]} images of the batch in the first"
        )
    return value.to(image.device)


def _domain_condition(
    domain: Domain, domain_names: Sequence[str], image: Tensor, unseen: bool
) -> Condition:
    num_samples, num_domains = image.shape[0], len(domain_names)
    if domain is None:
        if num_domains != 1:
            raise ConditionError(
                f"domain: missing; this model serves {num_domains} domains "
                f"({', '.join(domain_names)}), pass domain=labels (N,), names or weights=, "
                "or say what becomes of unseen ones, e.g. model.unseen = 'mean'"
            )
        domain = 0
    if isinstance(domain, Tensor):
        checked = _checked(domain, num_samples, domain_names, unseen)
        return Condition(checked.to(image.device))
    if isinstance(domain, str) or not isinstance(domain, Iterable):
        labels = [_label(domain, domain_names, unseen)] * num_samples
    else:
        labels = [_label(name, domain_names, unseen) for name in domain]
    if len(labels) != num_samples:
        raise ConditionError(f"domain: got {len(labels)} names for {num_samples} images")
    return Condition(torch.tensor(labels, dtype=torch.long, device=image.device))


def _label(name: Any, domain_names: Sequence[str], unseen: bool) -> int:
    if isinstance(name, str):
        if name not in domain_names:
            if unseen:
                return UNSEEN
            raise ConditionError(unknown("domain", name, domain_names))
        return list(domain_names).index(name)
    try:
        if isinstance(name, bool):
            raise TypeError
        label = operator.index(name)
    except TypeError:
        raise ConditionError(f"domain: got {name!r}, expected a name or an integer label") from None
    if not (0 <= label < len(domain_names) or (unseen and label == UNSEEN)):
        raise ConditionError(_out_of_range(label, domain_names))
    return label


def _checked_weights(weights: Tensor, shape: tuple[int, int], zeros: bool) -> Tensor:
    if not isinstance(weights, Tensor):
        raise ConditionError(
            f"weights: got {type(weights).__name__}, expected a float tensor {shape}; "
            "torch.as_tensor makes one"
        )
    if weights.shape != shape or not weights.is_floating_point():
        raise ConditionError(
            f"weights: got {tuple(weights.shape)} {weights.dtype}, expected a float tensor "
            f"{shape}: one row per image, one column per domain"
        )
    if weights.device.type == "cpu" and not torch.compiler.is_compiling():
        total = weights.detach().float().sum(1)
        if bool((weights < 0).any()):
            raise ConditionError(
                f"weights: got {float(weights.min()):.3g}, expected shares of at least 0"
            )
        apart = (total - 1).abs()
        apart = apart.masked_fill(total == 0, 0) if zeros else apart
        if not bool((apart <= 0.02).all()):
            worst = float(total[apart.argmax()])
            raise ConditionError(
                f"weights: a row sums to {worst:.3g}, expected 1; divide each row by its sum"
            )
    return weights


def _checked(domain: Tensor, num_samples: int, domain_names: Sequence[str], unseen: bool) -> Tensor:
    if domain.is_floating_point() or domain.is_complex() or domain.dtype == torch.bool:
        raise ConditionError(f"domain: got {domain.dtype} labels, expected integers; use .long()")
    if domain.shape != (num_samples,):
        raise ConditionError(
            f"domain: got shape {tuple(domain.shape)}, expected ({num_samples},): one per image"
        )
    # Reading values costs a synchronization on a GPU, and a graph break under compile; there the
    # gather itself asserts the range.
    if domain.device.type == "cpu" and not torch.compiler.is_compiling() and num_samples:
        low, high = int(domain.min()), int(domain.max())
        for value in (low, high):
            if not (UNSEEN if unseen else 0) <= value < len(domain_names):
                raise ConditionError(_out_of_range(value, domain_names))
    return domain.long()


def _out_of_range(value: int, domain_names: Sequence[str]) -> str:
    listing = ", ".join(f"{label} {name}" for label, name in enumerate(domain_names))
    return f"domain: label {value} is out of range, this model's domains are: {listing}"
