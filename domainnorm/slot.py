"""How the condition of a batch reaches the norms.

All norms of a model hold the same `ConditionSlot`. The model puts the `Condition` of the batch in
flight into it, and takes it out after the forward pass. A plain object is the one way that
survives gradient checkpointing, ``torch.compile`` and DDP: a ContextVar is gone in the recompute,
a buffer is overwritten by DDP's broadcast.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition, Pair, RecordedMoments
from domainnorm.errors import ConditionError


class ConditionSlot:
    """Holds the condition of the batch in flight for all norms of one model.

    Threads that run one model wait for each other's forward passes. A recompute of gradient
    checkpointing reads what was armed for its own backward pass, whatever other threads do.
    """

    def __init__(self) -> None:
        self._recorded: tuple[int, RecordedMoments] | None = None  # and by which thread
        self._held: Condition | None = None  # of the forward pass in flight, under the lock
        self._armed: dict[int, Condition] = {}  # of backward passes, by autograd's id for them
        self._armed_in: dict[int, int] = {}  # and the threads they run in
        # What compiled code reads: a compiler can follow neither the lock nor autograd's ids.
        self._traced: Condition | None = None
        self._look: Callable[[], set[str]] | None = None  # see `looking`
        self._looks: int | None = None  # the thread that looks
        self._lock = threading.RLock()
        self._process = os.getpid()

    @property
    def current(self) -> Condition | None:
        """The condition that a layer sees here and now.

        Raises:
            ConditionError: A recompute to which several conditions could belong.
        """
        if torch.compiler.is_compiling():
            return self._traced
        if not self._armed:
            return self._held
        task = torch._C._current_graph_task_id()
        if task < 0:  # a forward pass, while another thread runs a backward pass
            return self._held
        if task in self._armed:
            return self._armed[task]
        # A backward pass inside another one (reentrant checkpoints in each other), or one of an
        # output that came from a `condition` block: nobody has told whose it is.
        known = [*self._armed.values(), *([] if self._held is None else [self._held])]
        if len(known) == 1:
            return known[0]
        raise ConditionError(
            "gradient checkpointing recomputes this layer while several passes through the model "
            "are in flight; use a copy of the model in each thread, or a lock around the whole step"
        )

    @contextmanager
    def recording(self) -> Iterator[RecordedMoments]:
        """Inside the block every norm writes the moments of its input under its path.

        The dictionary can then be a condition's ``style`` or ``thumbnail``.
        """
        with self._own_lock():
            recorded: RecordedMoments = {}
            self._recorded = threading.get_ident(), recorded
            try:
                yield recorded
            finally:
                self._recorded = None

    @property
    def recorded(self) -> RecordedMoments | None:
        """Where this thread's forward pass writes moments to, if it is in a `recording` block."""
        if self._recorded is None or self._recorded[0] != threading.get_ident():
            return None  # a recompute in another thread does not take part
        return self._recorded[1]

    def read(self, path: str, num_rows: int, folded: bool = False) -> Condition:
        """The condition for a layer that sees ``num_rows`` rows.

        Args:
            path: Module path of the layer, for messages.
            num_rows: Size of the first axis of its input.
            folded: Whether each sample reaches the layer as several consecutive rows (tokens or
                windows), in which case its label counts for all of them.

        Raises:
            ConditionError: No condition is set, or it describes another number of samples.
        """
        condition = self.current
        if condition is None:
            raise ConditionError(
                f"{path}: no condition is set; call the DomainModel, not its backbone, or enter "
                "`with model.condition(domain):` first; around a layer on its own, "
                "`with norm.slot.holding(Condition(domain=labels)):`"
            )
        num_samples = condition.num_samples
        if num_samples is None:
            return condition
        if self._looks is not None and self._looks == threading.get_ident():
            return condition.of_first(num_rows)
        whole = num_samples > 0 and num_rows % num_samples == 0
        if whole and (folded or (num_rows > num_samples and self._find_folded(path, condition))):
            return condition.repeat(num_rows // num_samples)
        if num_samples != num_rows:
            why = "not one image after the other; exclude this layer with `where`"
            if torch.compiler.is_compiling():
                why = "which compiled code cannot look into; call the model at this size before"
            raise ConditionError(f"{path}: {num_rows} rows for {num_samples} domain labels, {why}")
        return condition

    @contextmanager
    def holding(self, condition: Condition) -> Iterator[None]:
        """Set ``condition`` inside the block; the former one comes back after it.

        Other threads wait at the start of their blocks until this one is over.
        """
        if torch.compiler.is_compiling():
            # The former value is not read: a compiler would guard on it, and compile again for it.
            self._traced = condition
            try:
                yield
            finally:
                self._traced = None
            return
        with self._own_lock():
            self._bury()
            former = self._held
            self._held = self._traced = condition
            try:
                yield
            finally:
                self._held = self._traced = former

    @contextmanager
    def looking(self, look: Callable[[], set[str]]) -> Iterator[None]:
        """What a layer does that sees several rows per sample, which the conversion has not seen.

        Whether it does may depend on the size of the images: windows of TinyViT are the whole map
        of a small one.

        Args:
            look: Passes images through the network, every row under the condition of the first
                sample; returns the paths of layers in which the rows of a sample are consecutive.
        """
        if torch.compiler.is_compiling():
            yield
            return
        former, self._look = self._look, look
        try:
            yield
        finally:
            self._look = former

    def _find_folded(self, path: str, condition: Condition) -> bool:
        if torch.compiler.is_compiling() or self._look is None:
            return False
        recorded, self._recorded = self._recorded, None
        self._looks = threading.get_ident()
        try:
            with self.holding(condition):
                return path in self._look()
        finally:
            self._looks, self._recorded = None, recorded

    def settle(self, condition: Condition) -> None:
        """Put ``condition`` in the place of the current one, to the end of its block."""
        self._traced = condition
        if not torch.compiler.is_compiling():
            self._held = condition

    def arm_backward(self, output: Any, condition: Condition) -> None:
        """Make backward through ``output`` recompute checkpointed blocks under ``condition``.

        Gradient checkpointing runs blocks again during backward, when the slot is empty or holds
        the condition of a later forward pass. The hook fires before the first recompute of this
        graph, on whichever thread that is.
        """
        if torch.compiler.is_compiling():
            return
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(lambda _: self._arm(condition))

    def _arm(self, condition: Condition) -> None:
        task = torch._C._current_graph_task_id()
        if task not in self._armed:
            engine = torch.autograd.Variable._execution_engine  # as DDP and FSDP do
            engine.queue_callback(lambda: self._disarm(task))
        self._armed[task] = self._traced = condition
        self._armed_in[task] = threading.get_ident()

    def _bury(self) -> None:
        """Forget backward passes of this thread that an error has ended, without a last word."""
        if not self._armed or in_backward():
            return
        here = threading.get_ident()
        for task in [task for task, thread in self._armed_in.items() if thread == here]:
            self._disarm(task)

    def _disarm(self, task: int) -> None:
        self._armed.pop(task, None)
        self._armed_in.pop(task, None)
        self._traced = self._held

    def _own_lock(self) -> threading.RLock:
        if self._process != os.getpid():
            # Forked, maybe while a thread that does not exist here was in a forward pass.
            self.__init__()  # type: ignore[misc]
        return self._lock

    def __reduce__(self) -> tuple[type[ConditionSlot], tuple[()]]:
        # A copied or pickled model starts without a batch in flight.
        return ConditionSlot, ()


def in_backward() -> bool:
    """Whether this thread is in a backward pass, as a block that checkpointing recomputes is."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() >= 0


def tensors_in(output: Any) -> Iterator[Tensor]:
    """The tensors of what a network returns: one, or nested lists and mappings of them."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for item in output.values():
            yield from tensors_in(item)
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from tensors_in(item)


class MomentsReached(Exception):  # noqa: N818 - a signal to `find_nearest`, not an error
    """The nearest domain is wanted, and a layer with moments of domains has been reached.

    ``own``: moments of the rows of its input, which has ``shape``, (R, C) each; ``running``: those
    of the domains, (D, C) each.
    """

    def __init__(self, own: Pair, shape: torch.Size, running: Pair, eps: float) -> None:
        super().__init__("the nearest domain is wanted")
        self.own, self.shape, self.running, self.eps = own, shape, running, eps


@torch.no_grad()
def find_nearest(
    backbone: nn.Module, slot: ConditionSlot, image: Tensor, condition: Condition
) -> Tensor:
    """Labels (N,) of the domains nearest to each sample, those that ``condition`` knows kept.

    Runs ``backbone`` until the first norm with running moments of domains (for norms everywhere,
    its stem), where `divergence` decides. Norms before it, which have a pair per domain
    but no moments of domains, treat unseen samples as ``mean`` does.

    Raises:
        ConditionError: The image reaches no norm with moments of domains, or one that sees a single
            value per channel.
    """
    try:
        with slot.holding(replace(condition, unseen="nearest")):
            backbone(image)
    except MomentsReached as reached:
        assert condition.domain is not None
        own = _of_images(reached.own, reached.shape, len(image))
        nearest = divergence(own, reached.running, reached.eps).argmin(1)
        return torch.where(condition.domain < 0, nearest, condition.domain)
    raise ConditionError(
        "unseen: 'nearest' compares moments of domains, and this image reached no norm that has "
        "them; use 'mean'"
    )


def divergence(own: Pair, running: Pair, eps: float) -> Tensor:
    """Symmetric Kullback-Leibler divergence between diagonal Gaussians, of samples and domains.

    That of each channel, averaged. The scale of a channel does not matter, as it does for the
    Wasserstein distance. (N, C) and (D, C) → (N, D).

    Reference:
        Pan et al., Two at Once (IBN-Net), ECCV 2018, arXiv:1807.09441 (feature divergence of two
        domains). Differs: between a sample and a domain, as in Segu et al., Batch Normalization
        Embeddings for Deep Domain Generalization, 2020, arXiv:2011.12672, who take the Wasserstein
        distance summed over layers, and a mixture of domains instead of the nearest.
    """
    mean, var = own
    rows = running[0].to(var.dtype), running[1].to(var.dtype)
    return channel_divergence((mean[:, None], var[:, None]), rows, eps).mean(2)


def channel_divergence(one: Pair, other: Pair, eps: float) -> Tensor:
    """Symmetric Kullback-Leibler divergence between the normal distributions of each channel.

    ``½ (v/V + V/v - 2 + (m - M)² (1/v + 1/V))`` with means m, M and variances v, V, to which eps is
    added. (..., C), where the shapes of both go together.
    """
    (mean, var), (other_mean, other_var) = one, other
    var, other_var = var + eps, other_var + eps
    apart = (mean - other_mean).square()
    return (var / other_var + other_var / var - 2 + apart * (1 / var + 1 / other_var)) / 2


def _of_images(own: Pair, shape: torch.Size, num_images: int) -> Pair:
    """Moments (N, C) of images, each of which may be several consecutive rows."""
    mean, var = own
    rows = mean.reshape(num_images, -1, mean.shape[1])
    if rows.shape[1] * shape[2:].numel() == 1:
        raise ConditionError(
            f"unseen: 'nearest' compares moments, and the first norm that has them sees one value "
            f"per channel, {tuple(shape)}; use 'mean'"
        )
    centre = rows.mean(1)
    spread = (rows - centre[:, None]).square()
    return centre, (var.reshape(rows.shape) + spread).mean(1)
