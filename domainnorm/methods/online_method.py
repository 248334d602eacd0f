"""Methods that predict the test images of their targets, one batch after the other, and adapt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.evaluation.certainty import Certainty
from domainnorm.methods.base import Batch, Method
from domainnorm.methods.roles import Roles
from domainnorm.tasks import Task

_LABELS = ("target", "original", "labelled")
# Images that a mean prediction remembers, and of which there must be some before it says anything.
_MEMORY, _ENOUGH = 256, 64


class OnlineMethod(Method):
    """One algorithm that adapts while it predicts: it writes `adapt`.

    A **stream** is images of one target, or of several (``data.stream_order``); each starts from
    the source model. What one has moved in the rows of its targets stays there.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        reset: When the model goes back to the source's within a stream, and all is forgotten:
            ``never``; after so many batches; at another ``domain``, that of the first image of a
            batch; or at a ``collapse``, see `Collapse`.

    Attributes:
        stream_optimizer: What `descend` steps with; None before a stream, and where nothing is.
        source_state: The method as the first stream began with it; empty before.
        remembered: Attributes beside tensors of the module that a killed stream goes on with.

    Reference:
        Press et al., RDumb, NeurIPS 2023, arXiv:2306.05401 (a number of batches); Lim et al., ICLR
        2026, arXiv:2603.03796, sec. 4.1 (when predictions concentrate).
        Differs: all of the model goes back, not its last layers.
    """

    unlabelled: str = "target"
    starts_from: str = "source_only"
    takes_shots: bool = False  # nothing is learned from labels
    protocol: str = "online"
    remembered: tuple[str, ...] = ()

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        reset: int | Literal["never", "domain", "collapse"] = "never",
    ) -> None:
        super().__init__(model, task, roles)
        self.reset = reset
        self.collapse = Collapse()
        self.steps = 0
        self.present = ""  # the domain of the last image
        self.source_state: dict[str, Tensor] = {}
        self._domains: tuple[str, ...] = ()
        self._before: tuple[str, ...] = ()
        self._loader = -1
        self.stream_optimizer: torch.optim.Optimizer | None = None
        self._spent: dict[str, tuple[float, int]] = {}  # seconds and images

    def adapt(self, batch: Batch) -> Tensor:
        """Logits (N, K, ...) of one batch of a stream without labels, and a step on it.

        Called with gradients on; see `descend`.
        """
        raise NotImplementedError(f"{type(self).__name__}: adapt")

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Before the first image of a stream of these targets: modes, sums, and the like."""

    def begin_stream(self, domains: tuple[str, ...]) -> None:
        """Start from the source model, but for the rows that earlier streams have moved."""
        if not self.source_state:
            self.source_state = {name: value.clone() for name, value in self.state_dict().items()}
            self._before = self._domains = ()
        self._before += self._domains
        self._domains, self.present = domains, ""
        self.restart()

    def restart(self) -> None:
        """Go back to the source model, and forget what this stream has shown."""
        kept = set(self.roles.lent(self._before)) - set(self.roles.lent(self._domains))
        labels = [self.model.domain_names.index(name) for name in sorted(kept)]
        rows = [one.tensor.detach()[labels] for one in self.deployed.domain_rows()]
        self.load_state_dict(self.source_state)
        self.on_fit_start()  # a teacher starts as the model
        for model in {self.model, self.deployed}:  # of both, or the one would follow the other
            for one, value in zip(model.domain_rows(), rows, strict=True):
                one.tensor.data[labels] = value
        self.collapse, self.steps = Collapse(), 0
        # Its own: momentum would go on moving what was before.
        found: Any = self.configure_optimizers()
        self.stream_optimizer = found
        with torch.enable_grad():
            self.start_stream(self._domains)

    @torch.enable_grad()
    def follow_stream(self, batch: Batch) -> Tensor:
        """Logits of the next images, which `adapt` has without their labels; resets are seen to."""
        due = isinstance(self.reset, int) and self.steps == self.reset
        if self.reset == "domain":
            named = self.model.domain_names[int(batch["domain"][0])]
            before, self.present = self.present or named, named
            due = named != before
        if due:
            self.restart()
        self.steps += 1
        seen = {name: batch[name] for name in batch if name not in _LABELS}
        logits = self.adapt(self._shared(seen)).detach()
        if self.reset == "collapse" and self.collapse.update(logits):
            self.restart()
        return logits

    def descend(self, loss: Tensor) -> None:
        """Backward and a step of the optimizer of a stream, for `adapt`."""
        optimizer = self.stream_optimizer
        assert optimizer is not None
        scaler = getattr(getattr(self._trainer, "precision_plugin", None), "scaler", None)
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(optimizer)
        if self.clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()

    @property
    def memories(self) -> tuple[str, ...]:
        """`remembered`, and what resets are decided by."""
        return (*self.remembered, "steps", "present", "collapse.told.stored", "collapse.most")

    def on_test_epoch_start(self) -> None:
        """Start collecting; the source model is what streams start from."""
        super().on_test_epoch_start()
        self._loader, self.source_state = -1, {}
        self._spent = {}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Predict the next images of a stream, or images of another domain as the model is now."""
        if self.norm_domain is not None or dataloader_idx >= len(self._streams):
            self.eval()
            with self._clock("ms_plain", batch):
                super().test_step(batch, batch_idx, dataloader_idx)
            return
        if dataloader_idx != self._loader:
            self._loader = dataloader_idx
            self.begin_stream(self._streams[dataloader_idx])
        self.tell(batch)
        with self._clock("ms_per_image", batch):
            logits = self.follow_stream(batch)
        self.keep(logits, batch)

    def on_test_epoch_end(self) -> None:
        """What an image of a stream costs, and one that is only predicted, in milliseconds."""
        self.facts |= {name: 1000 * of / images for name, (of, images) in self._spent.items()}

    @contextmanager
    def _clock(self, name: str, batch: Batch) -> Iterator[None]:
        started = self._now()
        yield
        seconds, images = self._spent.get(name, (0.0, 0))
        self._spent[name] = seconds + self._now() - started, images + len(batch["image"])

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def _streams(self) -> list[tuple[str, ...]]:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        found: list[tuple[str, ...]] = data.streams
        return found


class Collapse:
    """Whether predictions of a stream concentrate on few classes, or are no numbers any more.

    Of the mean prediction over about the last 256 images (`Certainty`), the entropy falls below
    half of the largest that it has had, 64 images or more being seen.

    Attributes:
        told: What was predicted.
        most: The largest entropy of its mean.
    """

    def __init__(self) -> None:
        self.told = Certainty(_MEMORY)
        self.most = 0.0

    def update(self, logits: Tensor) -> bool:
        """Take in logits (N, K, ...) of a batch."""
        if not bool(logits.isfinite().all()):
            return True
        self.told.update(logits)
        if self.told.images < _ENOUGH:
            return False
        self.most = max(self.most, self.told.possible)
        return self.told.possible < self.most / 2
