"""One domain of a model that learns from the images of a stream, and nothing but this domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.norms.kernels.per_sample import raw_moments
from domainnorm.norms.statistics.running import RunningMoments

# Images that a row remembers: what a stream shows may change slowly.
_MEMORY = 500.0
# Of the entropy of a uniform prediction; Niu et al., sec. 4.1.
_RELIABLE = 0.4
# Groups of classes at most: memory does not grow with their number.
_GROUPS = 32


class StreamRow:
    """The rows of one domain, adapted by statistics and by entropy to unlabelled images.

    Running moments are those of a mixture: ``share · n / (n + prior)`` of its n images so far, the
    rest of the moments it started with, so that the first images do not decide, and all of them
    no more than a share. Nor do many of one class: where an image has one class, images are grouped
    by the predicted one, and groups mix in equal parts, with an equal part of the prior. Layers
    beyond ``depth`` keep the moments they started with: what they see is content. Scale and
    shift take a step of Adam per batch down the mean entropy of reliable predictions, those below
    0.4 of the largest entropy. Rows of other domains, and what all share, stay bit for bit.

    Args:
        model: Changed in place, in evaluation mode.
        domain: Its name.
        share: Of the images' moments in the mixture, in [0, 1].
        prior: Images after which half of the share is reached, ≥ 0.
        depth: Part of the norm layers, from the input on, whose moments are adapted, in [0, 1].
        lr: Of Adam; 0 leaves scale and shift alone.

    Reference:
        Schneider et al., Improving robustness against common corruptions by covariate shift
        adaptation, NeurIPS 2020, arXiv:2006.16971, eq. 1 (moments with a prior); You et al.,
        Test-time batch statistics calibration, 2021, arXiv:2110.04065, eq. 2 (a fixed share);
        Wang et al., Tent, ICLR 2021, arXiv:2006.10726, eq. 1 (entropy); Niu et al., Efficient
        Test-Time Model Adaptation without Forgetting, ICML 2022, arXiv:2204.02610, eq. 3 (only
        reliable predictions); Gong et al., NOTE, NeurIPS 2022, arXiv:2208.05117, sec. 3.2 (equal
        parts of predicted classes, there by a memory of images).
        Differs: moments of the mixture distribution instead of averaged variances, of all images
        instead of the last batch; normalization with them while entropy is minimized.
    """

    def __init__(
        self,
        model: DomainModel,
        domain: str,
        *,
        share: float,
        prior: float,
        lr: float,
        depth: float = 1.0,
    ) -> None:
        self.model, self.domain = model, domain
        self.share, self.prior, self.depth = share, prior, depth
        self.images: Tensor | None = None  # of each group of classes, (G,)
        row = self._row
        self._start = {
            path: torch.stack([tracked.running_mean[row], tracked.running_var[row]]).double()
            for path, tracked in self._tracked()
        }
        self._sums: dict[str, Tensor] = {}  # of each group, (G, 2, C)
        self._own = [nn.Parameter(table[row].detach().clone()) for table in self._tables()]
        self._adam = torch.optim.Adam(self._own, lr=lr) if lr and self._own else None

    @property
    def _row(self) -> int:
        return self.model.domain_names.index(self.domain)

    def _tracked(self) -> Iterator[tuple[str, RunningMoments]]:
        norms = list(self.model.norms())
        for norm in norms[: round(self.depth * len(norms))]:
            if isinstance(norm.statistics, RunningMoments) and norm.statistics.tracks_domains:
                yield norm.path, norm.statistics

    def _tables(self) -> Iterator[nn.Parameter]:
        for norm in self.model.norms():
            yield from norm.modulation.rows()

    def update(self, image: Tensor) -> None:
        """Adapt to images (N, 3, H, W) of this domain."""
        tables = list(self._tables())
        for table in tables:
            table.requires_grad_(self._adam is not None).grad = None
        with self._observing() as seen, torch.set_grad_enabled(self._adam is not None):
            output = self.model(image, self.domain)
            loss = reliable_entropy(output)
        groups = _groups(output)
        if self._adam is not None and loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
            self._step(tables)
        for table in tables:
            table.requires_grad_(False).grad = None
        self._track(seen, groups)

    @torch.no_grad()
    def _step(self, tables: list[nn.Parameter]) -> None:
        assert self._adam is not None
        row = self._row
        for own, table in zip(self._own, tables, strict=True):
            # None where the entropy does not depend on it; Adam then leaves it alone.
            own.grad = None if table.grad is None else table.grad[row].clone()
        self._adam.step()
        for own, table in zip(self._own, tables, strict=True):
            table[row] = own

    @contextmanager
    def _observing(self) -> Iterator[dict[str, Tensor]]:
        """Mean and mean square (N, 2, C) of the images that pass each layer."""
        seen: dict[str, Tensor] = {}

        def observer(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def observe(_: nn.Module, inputs: tuple[Any, ...]) -> None:
                seen[path] = raw_moments(inputs[0].detach())

            return observe

        with ExitStack() as stack:
            for path, tracked in self._tracked():
                stack.callback(tracked.register_forward_pre_hook(observer(path)).remove)
            yield seen

    @torch.no_grad()
    def _track(self, seen: dict[str, Tensor], member: Tensor) -> None:
        """Moments (N, 2, C) of images by layer, and their groups, (N, G) of zeros and ones."""
        number, known = len(member), 0.0 if self.images is None else float(self.images.sum())
        keep = min(1.0, max(0.0, _MEMORY - number) / known) if known else 1.0
        former = member.new_zeros(member.shape[1]) if self.images is None else self.images
        self.images = keep * former + member.sum(0)
        groups, least = member.shape[1], torch.finfo(torch.float64).tiny
        weight = self.share / (self.images + self.prior / groups).clamp(min=least)  # of each image
        start = (1 - weight * self.images).mean()
        row = self._row
        for path, tracked in self._tracked():
            if path not in seen:  # a layer that this pass does not reach
                continue
            # A folded layer sees several rows of each image.
            of_layer = seen[path].reshape(number, -1, *seen[path].shape[1:]).mean(1)
            added = torch.einsum("ng,nmc->gmc", member, of_layer)
            sums = added if path not in self._sums else keep * self._sums[path] + added
            self._sums[path] = sums
            mean, var = self._start[path]
            first, second = (weight[:, None, None] * sums).mean(0) + start * torch.stack(
                [mean, var + mean.square()]
            )
            tracked.running_mean[row] = first.to(tracked.running_mean)
            tracked.running_var[row] = (second - first.square()).clamp(min=0).to(first.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs beside the model's rows."""
        adam = {} if self._adam is None else self._adam.state_dict()
        return {"images": self.images, "start": self._start, "sums": self._sums, "adam": adam}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped, whose rows the model has."""
        self.images, self._start, self._sums = state["images"], state["start"], state["sums"]
        if self._adam is not None:
            self._adam.load_state_dict(state["adam"])


def _groups(output: Tensor) -> Tensor:
    """Group of each image by its predicted class, (N, G), one-hot; one group for masks."""
    if output.ndim > 2:
        return output.new_ones(len(output), 1, dtype=torch.float64)
    groups = min(output.shape[1], _GROUPS)
    return F.one_hot(output.detach().argmax(1) % groups, groups).double()


def reliable_entropy(output: Tensor) -> Tensor | None:
    """Mean entropy of reliable predictions, in nats; None where there is none.

    Args:
        output: Logits (N, K) or (N, K, H, W) of exclusive classes.
    """
    log_probability = output.log_softmax(1)
    entropy = -(log_probability.exp() * log_probability).sum(1)
    reliable = entropy.detach() < _RELIABLE * math.log(output.shape[1])
    return entropy[reliable].mean() if bool(reliable.any()) else None
