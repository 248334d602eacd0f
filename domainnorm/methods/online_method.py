"""Methods that predict the test images of their targets, one batch after the other, and adapt."""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from domainnorm.backbones import DomainModel, mix_rows
from domainnorm.backbones.domains.owned_rows import encoder_rows
from domainnorm.errors import DomainNormError
from domainnorm.evaluation.certainty import Certainty
from domainnorm.methods.base import Batch, Method
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import scattered
from domainnorm.ranges import problem_of_opened
from domainnorm.streams import DomainWatch, Sighting
from domainnorm.tasks import Task

_LABELS = ("target", "original", "labelled")
# Images that a mean prediction remembers, and of which there must be some before it says anything.
_MEMORY, _ENOUGH = 256, 64


class OnlineMethod(Method):
    """One algorithm that adapts while it predicts: it writes `adapt`.

    A **stream** has images of one target or of several (``data.stream_order``), and starts from the
    source model. The rows of its targets keep what the stream has changed.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        reset: When the model returns to the source model within a stream: ``never``; after a number
            of batches; at a new ``domain`` (of the first image of a batch); or at a ``collapse`` of
            the predictions, see `Collapse`.
        rows: Which rows of the norms an image uses. ``told``: those of its known domain.
            ``opened``: the encoder estimates the domain, and `DomainWatch` opens a row of a target
            for each new one. Images of other known domains are predicted by a copy of the source
            model, and adapt nothing.
        run_length: Only for ``opened``: mean number of images between false alarms, above 1, see
            `NoveltyAlarm`.

    Attributes:
        watch: Of ``opened``, what tells the domains; None before a stream.
        sighting: What it has told of the last batch.
        settled: Of ``opened``, the source model, with the rows as they were opened.
        stream_optimizer: What `descend` steps with; None before a stream, and where nothing is.
        source_state: The method as the first stream began with it; empty before.
        remembered: Attributes beside tensors of the module that a killed stream goes on with.

    Reference:
        Press et al., RDumb, NeurIPS 2023, arXiv:2306.05401 (a number of batches); Lim et al., ICLR
        2026, arXiv:2603.03796, sec. 4.1 (when predictions concentrate).
        Differs: all of the model goes back, not its last layers.

    Raises:
        DomainNormError: Rows that cannot be opened, see `problem_of_opened`.
    """

    unlabelled: str = "target"
    starts_from: str = "source_only"
    augmented: bool = False
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
        rows: Literal["told", "opened"] = "told",
        run_length: float = 10_000.0,
    ) -> None:
        super().__init__(model, task, roles)
        if rows == "opened" and (problem := in_the_way(model, reset, roles.rows)):
            raise DomainNormError(f"rows: {problem}")
        self.reset = reset
        self.rows, self.run_length = rows, run_length
        self.watch: DomainWatch | None = None
        self.sighting: Sighting | None = None
        self.begun: dict[int, list[Tensor]] = {}  # what rows that were opened began with
        self.settled: tuple[DomainModel, ...] = ()  # no child: it is neither moved nor stored
        # What the encoder knows of rows that earlier streams have opened, by label.
        self._told_before: dict[int, list[Tensor]] = {}
        self._opened = 0
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

    @torch.no_grad()
    def begin_row(self, row: int, values: list[Tensor]) -> None:
        """Let a row that is opened begin with these values, of all tensors that have such rows."""
        self.begun[row] = values
        for model in self.copies:
            for one, value in zip(model.domain_rows(), values, strict=True):
                one.tensor[row] = value.to(one.tensor)
        self.row_opened(row)

    def row_opened(self, row: int) -> None:
        """What is remembered of how rows began is that of this one now, which has been written."""

    @property
    def copies(self) -> list[DomainModel]:
        """All networks that have this model's rows."""
        return [*self.networks, *self.settled]

    def begin_stream(self, domains: tuple[str, ...]) -> None:
        """Start from the source model, but for the rows that earlier streams have moved."""
        if not self.source_state:
            self.source_state = {name: value.clone() for name, value in self.state_dict().items()}
            self._before = self._domains = ()
            self._told_before = {}
        self._remember_opened()
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
        for model in self.copies:  # of all, or the one would follow the other
            for one, value in zip(model.domain_rows(), rows, strict=True):
                one.tensor.data[labels] = value
        self.collapse, self.steps, self.sighting = Collapse(), 0, None
        # Its own: momentum would go on moving what was before.
        found: Any = self.configure_optimizers()
        self.stream_optimizer = found
        with torch.enable_grad():
            self.start_stream(self._domains)
        self.begun = {}
        if self.rows == "opened":
            settled = copy.deepcopy(self.model).eval().requires_grad_(False)
            self.settled = (settled,)
            for model in self.copies:  # what the encoder knows of domains is one for all
                assert model.encoder is not None
                assert self.model.encoder is not None
                model.encoder.gaussians = self.model.encoder.gaussians
            self.watch = DomainWatch(settled, self._learning, self.run_length)

    @property
    def _learning(self) -> list[int]:
        """Labels of the rows that may be opened."""
        return [self.model.domain_names.index(name) for name in self.roles.lent(self._domains)]

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
        if self.watch is None:
            logits = self.adapt(self._shared(seen)).detach()
        else:
            logits = self._watched(seen["image"], self.watch)
        if self.reset == "collapse" and self.collapse.update(logits):
            self.restart()
        return logits

    def _watched(self, image: Tensor, watch: DomainWatch) -> Tensor:
        """Logits of images of which nobody says the domains; only rows of targets adapt."""
        self.sighting = sighting = watch.look(image)
        domain = sighting.domain
        learns = torch.isin(domain, torch.tensor(self._learning, device=domain.device))
        parts: list[tuple[Tensor, Tensor]] = []
        if not bool(learns.all()):
            (settled,), weights = self.settled, sighting.weights[~learns]
            with torch.no_grad():
                found = self.task.predict(settled, image[~learns], weights=weights)
            parts.append((~learns, found))
        if bool(learns.any()):
            own = {"image": image[learns], "domain": domain[learns]}
            parts.append((learns, self.adapt(own).detach()))
        logits = scattered(parts)
        if sighting.alarm is not None and (opening := watch.open()) is not None:
            sighting.opened = self.model.domain_names[opening.label]
            mix_rows(self.model, sighting.opened, opening.shares)
            now = [one.tensor[opening.label].detach() for one in self.model.domain_rows()]
            self.begin_row(opening.label, [row.clone() for row in now])
            label = torch.full((len(opening.images),), opening.label, device=domain.device)
            self.adapt({"image": opening.images, "domain": label})
            self._opened += 1
        return logits

    def _remember_opened(self) -> None:
        """What the encoder knows of rows that this stream has opened, for after the others."""
        if self.watch is not None:
            tables = [one.tensor for one in encoder_rows(self.model.encoder)]
            for row in self.begun:
                self._told_before[row] = [table[row].clone() for table in tables]

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
        watched = () if self.watch is None else ("watch.seen",)
        decided = ("steps", "present", "collapse.told.stored", "collapse.most")
        return (*self.remembered, *watched, *decided)

    def on_test_epoch_start(self) -> None:
        """Start collecting; the source model is what streams start from."""
        super().on_test_epoch_start()
        self._loader, self.source_state, self._opened = -1, {}, 0
        self._spent = {}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Predict the next images of a stream, or images of another domain as the model is now."""
        if self.norm_domain is not None or dataloader_idx >= len(self._streams):
            self.eval()
            if "mb_plain" not in self.facts:
                with self._memory("plain", batch):
                    embedding = self.model.embedding_of(batch)
                    self.model(batch["image"], batch["domain"], embedding=embedding)
            with self._clock("plain", batch):
                super().test_step(batch, batch_idx, dataloader_idx)
            return
        if dataloader_idx != self._loader:
            self._loader = dataloader_idx
            self.begin_stream(self._streams[dataloader_idx])
        self.tell(batch)
        second = "per_image" in self._spent and "mb_per_image" not in self.facts
        with (self._memory if second else self._clock)("per_image", batch):
            logits = self.follow_stream(batch)
        self.keep(logits, batch)

    def on_test_epoch_end(self) -> None:
        """What an image of a stream costs, and one that is only predicted: time and memory."""
        super().on_test_epoch_end()
        for name, (seconds, images) in self._spent.items():
            self.facts[f"ms_{name}"] = 1000 * seconds / images
        if self.watch is not None:
            self.facts["rows_opened"] = float(self._opened)
            self._remember_opened()
            for number, one in enumerate(encoder_rows(self.model.encoder)):
                for row, known in self._told_before.items():
                    one.tensor[row] = known[number]

    @contextmanager
    def _clock(self, name: str, batch: Batch) -> Iterator[None]:
        started = self._now()
        yield
        seconds, images = self._spent.get(name, (0.0, 0))
        self._spent[name] = seconds + self._now() - started, images + len(batch["image"])

    @contextmanager
    def _memory(self, name: str, batch: Batch) -> Iterator[None]:
        with LivingTensors() as living:
            yield
        self.facts[f"mb_{name}"] = living.peak / len(batch["image"]) / 2**20

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def _streams(self) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = self.datamodule.streams
        return found


def in_the_way(model: DomainModel, reset: object = "never", rows: str = "domain") -> str:
    """What is in the way of rows that are opened, see `problem_of_opened`; nothing when empty."""
    return problem_of_opened(
        reset,
        rows,
        has_encoder=model.encoder is not None,
        reads_attributes=model.reads_attributes,
        has_rows=any(True for _ in model.domain_rows()),
    )


class LivingTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """How many bytes of tensors that are made inside live at once, on whatever device.

    What an allocator holds besides, and what a kernel needs while it runs, is not in it.

    Attributes:
        peak: The most so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation, and count the storages that it makes."""
        made = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(made):
            key = storage._cdata
            if key not in given and key not in self._known:
                self._known.add(key)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._freed, key, storage.nbytes())
        self.peak = max(self.peak, self._now)
        return made

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _storages(found: Any) -> Iterator[torch.UntypedStorage]:
    """Of the tensors among the arguments or results of an operation."""
    return (one.untyped_storage() for one in tree_leaves(found) if isinstance(one, Tensor))


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
