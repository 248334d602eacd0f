"""Moments of several kinds, mixed per channel."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError, unknown
from domainnorm.norms.kernels.batch_norm import track
from domainnorm.norms.kernels.partition import counts
from domainnorm.norms.kernels.sample_moments import (
    Moments,
    affine_map,
    pool_channels,
    sample_moments,
)
from domainnorm.norms.statistics.channels import check_groups
from domainnorm.norms.statistics.running import DomainStatistics
from domainnorm.registry import register

_PARTS = ("instance", "batch", "domain", "layer", "group")
_TRACKED = ("batch", "domain")
_DEVIATIONS = 4.0  # standard errors that moments of a sample may be off; k of IABN


@register
class MixedStatistics(DomainStatistics):
    """Several statistics at once: each channel uses one of them, or a mixture.

    With moments M_p, V_p of part p, of which exactly one is ``batch`` or ``domain`` and has running
    moments:

    - ``split``: equal blocks of channels, in the order of ``parts`` (IBN-a: the first half
      instance, the rest batch).
    - ``learned``: two parts; ``g · (x - M_t) R_t + (1 - g) · (x - M_o) R_o``, R = rsqrt(V + eps),
      with a learned g in [0, 1] per channel, t the tracked part and o the other. g starts at 1 and
      is clipped before every training step (BIN).
    - ``softmax``: ``mean = Σ_p w_p M_p``, ``var = Σ_p v_p V_p``, w and v softmax of learned
      weights of the layer, equal at the start (switchable normalization).
    - ``shrink``: ``instance`` and the tracked part t, whose moments are corrected where those of
      the sample, of n values, are further from them than chance would have it: ``mean = M_t +
      s(M_i - M_t, 4 sqrt(V_t / n))``, ``var = V_t + s(V_i - V_t, 4 V_t sqrt(2 / (n - 1)))``, where
      ``s(d, l)`` takes l from the size of d, down to 0 (IABN). One value has the moments of t.
    - ``fixed``: one part; training as usual, evaluation with ``alpha`` times the running moments
      (source) plus ``1 - alpha`` times those of the batch at hand (target) (α-BN).

    ``layer`` is over all channels and pixels of a sample, as in the paper on switchable
    normalization. A group of samples with a single value gets its running moments. Under DDP the
    ``batch`` and ``domain`` parts are, in training, over the samples of all ranks; in evaluation,
    where ranks may have different numbers of batches, α-BN sees those of its own rank.

    Args:
        num_features: C.
        num_domains: D.
        parts: Statistics to mix, of instance, batch, domain, layer, group; null for instance and
            batch (gate ``fixed``: batch).
        gate: How parts are mixed: ``split``, ``learned``, ``softmax``, ``shrink`` or ``fixed``,
            see above.
        alpha: Weight of the running moments for ``fixed``, in [0, 1].
        num_groups: Groups of channels of the part ``group``, at least 1.
        momentum: Weight of the new batch in [0, 1]; null for the cumulative average.
        eps: Added to variances.

    Raises:
        DomainNormError: Parts that are unknown, or do not fit the gate.

    Reference:
        Pan et al., Two at Once (IBN-Net), ECCV 2018, arXiv:1807.09441, sec. 3 (split). Nam and
        Kim, Batch-Instance Normalization, NeurIPS 2018, arXiv:1805.07925, sec. 3 (learned). Luo et
        al., Differentiable Learning-to-Normalize, ICLR 2019, arXiv:1806.10779, sec. 2 (softmax).
        You et al., Test-time Batch Statistics Calibration, 2021, arXiv:2110.04065, eq. 2
        (fixed). Gong et al., NOTE, NeurIPS 2022, arXiv:2208.05117, sec. 3.1 (shrink).
        Agrees with the authors' code (XingangPan/IBN-Net, hyeonseob-nam/Batch-Instance-
        Normalization, switchablenorms/Switchable-Normalization, TaesikGong/NOTE) but for
        variances of a sample, which are biased here, as in the papers, and unbiased in those of
        switchable normalization and NOTE. Differs from switchable normalization besides: running
        variances are unbiased and start at 1, there biased and at 0.
    """

    takes_rows = False

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        *,
        parts: list[str] | None = None,
        gate: Literal["split", "learned", "softmax", "shrink", "fixed"] = "split",
        alpha: float = 0.9,
        num_groups: int = 32,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
    ) -> None:
        if parts is None:
            parts = ["batch"] if gate == "fixed" else ["instance", "batch"]
        _check(parts, gate, alpha)
        if "group" in parts:
            check_groups(num_groups, num_features)
        rows = num_domains if "domain" in parts else 1
        super().__init__(num_features, rows, momentum=momentum, eps=eps)
        self.parts = tuple(parts)
        self.gate = gate
        self.alpha = alpha
        self.num_groups = num_groups
        if gate == "learned":
            self.share = nn.Parameter(torch.ones(num_features))
        elif gate == "softmax":
            self.mean_weight = nn.Parameter(torch.ones(len(parts)))
            self.var_weight = nn.Parameter(torch.ones(len(parts)))

    @property
    def keeps_function(self) -> bool:
        """A learned gate starts on the part that took over the running moments."""
        return self.gate == "learned"

    @property
    def tracks_domains(self) -> bool:
        """Rows are domains where one part is ``domain``."""
        return "domain" in self.parts

    @torch.no_grad()
    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Running moments become ``mean``, ``var`` (C,); a learned gate selects them."""
        super().start(mean, var, batches)
        if self.gate == "learned":
            self.share.fill_(1)

    def forward(
        self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition, rows: bool = False
    ) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C).

        Raises:
            ConditionError: Soft weights in training with a domain part, or a map of one element
                with an instance part.
        """
        own = sample_moments(x)
        if self.gate == "shrink":
            parts = [self._shrunk(own, x, condition)]
        else:
            parts = [self._part(name, own, x, condition) for name in self.parts]
        factor, offset = self._mix(parts)
        return affine_map(x, scale * factor, shift + scale * offset)

    def _part(self, name: str, own: Moments, x: Tensor, condition: Condition) -> Moments:
        if name in _TRACKED:
            mean, var = self._tracked(own, x, condition)
            return Moments(mean.expand_as(own.mean), var.expand_as(own.var))
        if name == "instance":
            if x.ndim == 2 or x.shape[2:].numel() == 1:
                raise ConditionError(
                    f"instance part of a map with one element per channel, {tuple(x.shape)}: it "
                    "would always be zero; use domain statistics here (norm 'dsbn')"
                )
            return own
        return pool_channels(own, 1 if name == "layer" else self.num_groups)

    def _tracked(self, own: Moments, x: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Moments of the batch or domain part, (N or 1, C)."""
        dtype = own.mean.dtype
        if not self.training:
            mean, var = self.running_mean, self.running_var
            if self.tracks_domains:
                mean, var = self._moments(x, condition)
            mean, var = mean.to(dtype), var.to(dtype)
            if condition.unseen == "batch":
                size = x.shape[2:].numel()
                mean, var = condition.with_batch_moments((mean, var), own, size)
            if self.gate == "fixed" and self._group(condition, x) is not None:
                batch = self._pooled(own, x, condition)[0]
                mean = torch.lerp(batch.mean, mean.expand_as(own.mean), self.alpha)
                var = torch.lerp(batch.var, var.expand_as(own.var), self.alpha)
            return mean, var
        batch, rows, values = self._pooled(own, x, condition)
        track(self.running, rows.mean.detach(), rows.var.detach(), counts(values))
        return batch

    def _group(self, condition: Condition, x: Tensor) -> Tensor | None:
        """The row of each sample, (N,), or None where weights are soft."""
        if "batch" in self.parts:
            return self.num_batches_tracked.new_zeros(x.shape[0])
        return condition.domain

    def _pooled(
        self, own: Moments, x: Tensor, condition: Condition
    ) -> tuple[Moments, Moments, Tensor]:
        """Moments of each sample's group (N, C), and those and the values of the groups."""
        group = self._group(condition, x)
        if condition.unseen and "domain" in self.parts:
            raise ConditionError(
                "domain statistics of the batch at hand need a label per sample, got samples of "
                "unseen domains; pass domain=, or take another gate than 'fixed'"
            )
        if group is None:
            raise ConditionError(
                "domain statistics in training need one label per sample; pass domain=, or call "
                "model.eval()"
            )
        sync = self.training and self.synchronizes
        rows, values = self._pooled_rows(own, group, size=x.shape[2:].numel(), sync=sync)
        return Moments(*(one.index_select(0, group) for one in rows)), rows, values

    def _shrunk(self, own: Moments, x: Tensor, condition: Condition) -> Moments:
        """Moments of the tracked part, corrected by those of the samples (N, C)."""
        mean, var = self._part(self.parts[self._tracked_at], own, x, condition)
        size = x.shape[2:].numel()
        if size == 1:
            return Moments(mean, var)
        spread = var + self.eps
        mean = mean + _beyond(own.mean - mean, _DEVIATIONS * (spread / size).sqrt())
        limit = _DEVIATIONS * math.sqrt(2 / (size - 1)) * spread
        return Moments(mean, (var + _beyond(own.var - var, limit)).clamp(min=0))

    @property
    def _tracked_at(self) -> int:
        """Position of the batch or domain part."""
        return [name in _TRACKED for name in self.parts].index(True)

    def _mix(self, parts: list[Moments]) -> tuple[Tensor, Tensor]:
        """Factor and offset (N, C) of the normalization, ``x · factor + offset``."""
        if self.gate == "learned":
            share: Tensor = self.share
            if self.training and not torch.compiler.is_compiling():
                # Not an operation of the graph: two forward passes may precede one backward.
                self.share.data.clamp_(0, 1)
            else:
                # The gradient of `clamp` at its bounds, where a gate starts, is 0 in compiled code.
                share = share + (share.clamp(0, 1) - share).detach()
            tracked = self._tracked_at
            rstds = [torch.rsqrt(var + self.eps) for _, var in parts]
            factors = [rstds[tracked] * share, rstds[1 - tracked] * (1 - share)]
            offsets = [parts[tracked].mean * factors[0], parts[1 - tracked].mean * factors[1]]
            return factors[0] + factors[1], -(offsets[0] + offsets[1])
        means, variances = zip(*parts, strict=True)
        if self.gate == "softmax":
            mean = self._softmax(self.mean_weight, means)
            var = self._softmax(self.var_weight, variances)
        else:
            mean, var = self._blocks(means), self._blocks(variances)
        factor = torch.rsqrt(var + self.eps)
        return factor, -mean * factor

    @staticmethod
    def _softmax(weight: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        share = torch.softmax(weight, dim=0)[:, None, None]
        return (share * torch.stack(parts)).sum(0)  # not a product of matrices, see `weighted_rows`

    @staticmethod
    def _blocks(parts: tuple[Tensor, ...]) -> Tensor:
        """Block p of the channels from part p."""
        width, number = parts[0].shape[1], len(parts)
        bounds = [width * p // number for p in range(number + 1)]
        blocks = [part[:, bounds[p] : bounds[p + 1]] for p, part in enumerate(parts)]
        return torch.cat(blocks, dim=1)

    def extra_repr(self) -> str:
        """Shapes and constants, for ``print(model)``."""
        return f"{super().extra_repr()}, parts={'+'.join(self.parts)}, gate={self.gate}"


def _beyond(apart: Tensor, limit: Tensor) -> Tensor:
    """What lies beyond a limit of either sign; zero within."""
    return apart - torch.minimum(torch.maximum(apart, -limit), limit)


def _check(parts: list[str], gate: str, alpha: float) -> None:
    for name in parts:
        if name not in _PARTS:
            raise DomainNormError("parts: " + unknown("part", name, _PARTS))
    if len(set(parts)) != len(parts):
        raise DomainNormError(f"parts: {parts} names a part twice")
    if sum(name in _TRACKED for name in parts) != 1:
        raise DomainNormError(
            f"parts: {parts}, expected exactly one of batch and domain, which has running moments"
        )
    expected = {
        "fixed": "one part",
        "learned": "two parts",
        "shrink": "instance and batch or domain",
    }.get(gate, "two parts or more")
    fits = {
        "fixed": len(parts) == 1,
        "learned": len(parts) == 2,
        "shrink": len(parts) == 2 and "instance" in parts,
    }.get(gate, len(parts) >= 2)
    if not fits:
        raise DomainNormError(f"parts: {parts} under gate '{gate}', expected {expected}")
    if not 0 <= alpha <= 1:
        raise DomainNormError(f"alpha: got {alpha}, expected a number in [0, 1]")
