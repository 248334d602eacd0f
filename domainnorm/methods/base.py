"""Methods' base: what every adaptation algorithm shares.

A method says in class constants what it sees, and computes losses or predictions. Here lie
stepping, logging, teachers, ramps, evaluation, and two protocols: ``fit``, then test; ``online``:
predict test images of the target one after the other, while adapting.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningModule
from timm.utils import ModelEmaV3
from torch import Tensor, distributed, nn

from domainnorm.backbones import DomainModel, set_rows
from domainnorm.condition import Estimate
from domainnorm.errors import DomainNormError
from domainnorm.evaluation import Evaluated, mean_of_known
from domainnorm.methods.heads import seen_by_head
from domainnorm.methods.roles import Roles, domains_of
from domainnorm.methods.samples import complete, split
from domainnorm.norms.kernels.partition import several_ranks
from domainnorm.ranges import Conditioned, problem_of_task
from domainnorm.tasks import Task
from domainnorm.tasks.collected import Collected, Restore

# Tensors by name, see `DomainView`: image, target, domain, index, labelled, and strong where a
# method asks for two views; attributes are lists of text, masks at their own size a list. What
# loaders of one's own may leave out, `complete` adds.
Batch: TypeAlias = dict[str, Any]


class Method(LightningModule):
    """One adaptation algorithm over a `DomainModel`.

    Class constants say what a method may see; the data module is built from them:

    - ``labelled``, ``unlabelled``: roles whose images reach training with and without labels,
      ``"source"``, ``"target"``, ``"all"`` or ``""``.
    - ``starts_from``: ``"backbone"`` or ``"source_only"``.
    - ``augmented``: whether training images go through the augmentations of the recipe.
    - ``views``: ``"two"`` for batches with a ``strong`` view of each image beside ``image``.
    - ``balance``: equal parts of a batch: each ``"domain"``, or (un)labelled ones as a ``"role"``.
    - ``needs``: what it needs in the norms, ``"moments"`` (running ones), ``"weights"``, or ``""``.
    - ``may_average``: whether it has steps, and no average of weights of its own.
    - ``without_target``: whether it can do without a target, whose images it sees.
    - ``takes_shots``: whether it may learn from labels of few target images, see ``data.shots``.
    - ``tasks``: what it is for, all with labels when empty; ``for_masks``: options for masks only.
    - ``protocol``: ``"fit"``, or ``"online"`` for one that adapts while it predicts test images.

    A method of protocol ``fit`` writes `losses`, for one that is ``online`` see `OnlineMethod`.
    Networks, buffers and banks of its own are attributes: trained, moved and stored with it.

    Args:
        model: The network; trained in place.
        task: Supervised loss and metrics.
        roles: Source and target domains.

    Raises:
        DomainNormError: A domain that the model has no rows for, or a task that it is not for.

    Attributes:
        eval_domains: Domains whose images it is validated or tested on; all unless told less.
        teacher: Moving average of ``model``, see `follow`; None without one.
        clip: Norm to which gradients are clipped where the method steps by itself; None for none.
        facts: What it found out about itself by name, for the results of target domains.
        merit: Its own score without target labels, higher is better; `variants` are chosen by it.
        logs_tests: Whether a test logs its metrics; a run scores what the test has collected.
        finished: Whether nothing is lent any more: shared rows are equal, others a domain's own.
        accumulate: Batches whose gradients are added up before such a step.
    """

    labelled: str = ""
    unlabelled: str = ""
    starts_from: str = "source_only"
    augmented: bool = True
    views: str = "one"
    balance: str = "domain"
    needs: str = ""
    may_average: bool = False
    without_target: bool = False
    takes_shots: bool = True
    tasks: tuple[str, ...] = ()
    for_masks: tuple[tuple[str, str], ...] = ()
    protocol: str = "fit"
    teacher_steps: Tensor

    def __init__(self, model: DomainModel, task: Task, roles: Roles) -> None:
        super().__init__()
        roles.check(model.domain_names)
        if problem := problem_of_task(type(self).__name__, self.tasks, task.labels):
            raise DomainNormError(f"method: {problem}")
        self.model = model
        self.task = task
        self.roles = roles
        self.teacher: ModelEmaV3 | None = None
        self.clip: float | None = None
        self.facts: dict[str, float] = {}
        self.merit, self.accumulate = 0.0, 1
        self.finished, self.logs_tests = False, True
        self.norm_domain: str | None = None
        self.condition: Conditioned = "id"
        self.eval_domains: Sequence[str] = model.domain_names
        self.restore: Restore | None = None
        self._position = (0, 0)  # batches of this epoch before the present one, optimizer steps
        self.open_collection()

    # What a method computes.

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one training batch by name, weighted; their sum is minimized.

        Empty for a method that needs no step here, or has made its own with `step`.
        """
        raise NotImplementedError(f"{type(self).__name__}: losses")

    @property
    def max_epochs(self) -> int | None:
        """Epochs this method wants instead of the trainer's; None for the trainer's."""
        return None

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """Options to fit it with instead, by name: a run keeps what has the highest `merit`."""
        return {}

    @property
    def deployed(self) -> DomainModel:
        """What is validated, tested and saved: the teacher where there is one."""
        if self.teacher is None:
            return self.model
        averaged: DomainModel = self.teacher.module
        return averaged

    @property
    def networks(self) -> tuple[DomainModel, ...]:
        """`model` and `deployed`, once where they are one; in this order on each rank."""
        return tuple(dict.fromkeys((self.model, self.deployed)))

    # What it may use for that.

    def forward(self, image: Tensor, domain: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Logits (N, K, ...) of images (N, 3, H, W) under the norms of ``domain`` (N,)."""
        logits: Tensor = self.model(image, domain, embedding=embedding)
        return logits

    def outputs(
        self,
        batch: Batch,
        *,
        view: str = "image",
        domain: Tensor | None = None,
        model: DomainModel | None = None,
    ) -> Tensor:
        """Logits (N, K, ...) of a batch, each image under the norms of its domain.

        Args:
            batch: See `Batch`.
            view: Which images: ``image`` or ``strong``.
            domain: Labels (N,) of the rows to use instead.
            model: `model` when None, or a teacher.
        """
        model = self.model if model is None else model
        domain = batch["domain"] if domain is None else domain
        embedding = model.embedding_of({**batch, "image": batch[view]})
        logits: Tensor = model(batch[view], domain, embedding=embedding)
        return logits

    def features(self, batch: Batch, **options: Any) -> tuple[Tensor, Tensor]:
        """What reaches the classifier or segmentation head, and the logits, of one pass.

        Args:
            batch: See `Batch`.
            **options: See `outputs`.

        Returns:
            (N, F) and (N, K) of a classifier; (N, F, h, w) and (N, K, H, W) of masks.

        Raises:
            ConversionError: A network that names no head.
        """
        model = options.get("model") or self.model
        return seen_by_head(model, lambda: self.outputs(batch, **options))

    @property
    def progress(self) -> float:
        """Share of training that is done before the present batch, in [0, 1): for ramps."""
        batches = int(self.trainer.num_training_batches)
        done = self.current_epoch * batches + self._position[0]
        return done / (batches * max(1, self.trainer.max_epochs or 1))

    def sweep(
        self, role: str = "target", domains: tuple[str, ...] = (), *, mixed: bool = False
    ) -> Iterator[Batch]:
        """All training images of a role once, whole and not augmented, without labels.

        Every rank gets all of them, so that banks by index and pseudo-labels are the same on each.

        Args:
            role: ``source``, ``target`` or ``all``, one that this method may see.
            domains: Names of some of its domains; all when empty.
            mixed: In a random order. Files are in that of their classes: moments want it.
        """
        chosen = domains or domains_of(role, self.roles)
        loader = self.datamodule.domain_dataloader("train", domains=chosen, mixed=mixed)
        yield from map(self.ready, loader)

    @property
    def datamodule(self) -> Any:
        """The trainer's; it is an error to have loaders instead, which give batches alone."""
        found = getattr(self.trainer, "datamodule", None)
        if found is None:
            raise DomainNormError(
                f"{type(self).__name__} needs more images than those of its batches; give the "
                "trainer a domainnorm.data.DomainDataModule as datamodule, not loaders"
            )
        return found

    def ready(self, batch: Batch) -> Batch:
        """A batch of a loader of one's own, on the device and in the precision of this method."""
        converted = self.trainer.precision_plugin.convert_input(batch)
        moved = self.transfer_batch_to_device(converted, self.device, 0)
        return self._shared(self._completed(moved, training=True))

    def _completed(self, batch: Any, *, training: bool, views: str = "one") -> Batch:
        seen, names = domains_of(self.labelled, self.roles), self.model.domain_names
        return complete(batch, names, self.task, seen, training=training, views=views)

    def share_rows(self) -> None:
        """Give every domain the rows that its images had, those of `Roles.lenders`."""
        if self.finished:
            return
        for model in self.networks:
            for name in self.roles.all:
                if self.roles.lent((name,)) != (name,):
                    set_rows(model, name, self.roles.lent((name,)))

    def _shared(self, batch: Batch) -> Batch:
        """A batch whose images have the rows that their domains share."""
        if self.finished or self.roles.rows == "domain":
            return batch
        names = self.model.domain_names
        lenders = [self.roles.lent((one,))[0] if one in self.roles.all else one for one in names]
        labels = torch.tensor([names.index(one) for one in lenders], device=self.device)
        return {**batch, "domain": labels[batch["domain"]]}

    def train_only(self, chosen: Iterable[nn.Parameter]) -> None:
        """Let these parameters of `model` learn, and no others of it."""
        self.model.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)

    def follow(self, decay: float) -> None:
        """Make `teacher`, which follows parameters and running moments of `model`.

        After step t (from 1) ``teacher += (1 - a) (model - teacher)`` with ``a = min(decay, 1 -
        1/t)``: a mean of all steps at first. It is in evaluation mode and takes no gradients.

        Args:
            decay: Weight of the teacher in [0, 1).
        """
        warmup = {"use_warmup": True, "warmup_gamma": 1.0, "warmup_power": 1.0}
        self.teacher = ModelEmaV3(self.model, decay, **warmup).requires_grad_(False)
        self.register_buffer("teacher_steps", torch.zeros((), dtype=torch.long))

    def step(self, loss: Tensor, *numbers: int) -> None:
        """Backward and a step of optimizers, for methods that set ``automatic_optimization``.

        Only parameters of these optimizers get gradients, averaged over ranks; scaling, clipping
        and accumulation are those of the recipe.

        Args:
            loss: Scalar.
            *numbers: Positions of optimizers in what `configure_optimizers` returns; all when none.
        """
        found: Any = self.optimizers(use_pl_optimizer=True)
        optimizers = found if isinstance(found, list) else [found]
        chosen = [optimizers[number] for number in numbers] or optimizers
        parameters = [p for one in chosen for group in one.param_groups for p in group["params"]]
        strategy: Any = self.trainer.strategy
        with strategy.block_backward_sync() if several_ranks() else nullcontext():
            self.manual_backward(loss / self.accumulate, inputs=parameters)
        last = self._position[0] + 1 == self.trainer.num_training_batches
        if not last and (self._position[0] + 1) % self.accumulate:
            return
        if several_ranks():
            for parameter in parameters:
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= distributed.get_world_size()
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad()

    # What Lightning calls.

    def train(self, mode: bool = True) -> Method:
        """Training mode for all but the teacher."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def on_fit_start(self) -> None:
        """The teacher starts as the model: weights are loaded after both have been made."""
        if self.teacher is not None and int(self.teacher_steps) == 0:
            self.deployed.load_state_dict(self.model.state_dict())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The sum of `losses` of one batch; None where there are none to step on."""
        self._position = (batch_idx, self.global_step)
        batch = self._completed(batch, training=True, views=self.views)
        losses = self._with_shots(self._shared(batch))
        if not losses:
            return None
        total = self.log_loss(losses, batch)
        return total if self.automatic_optimization else None

    def _with_shots(self, batch: Batch) -> dict[str, Tensor]:
        """`losses`, and beside those of a method without labels the supervised loss of shots."""
        if self.labelled or not bool(batch["labelled"].any()):
            return self.losses(batch)
        shots, others = split(batch)
        return self.losses(others) | {"shots": self.task.loss(self.outputs(shots), shots["target"])}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip gradients where Lightning does not; they are unscaled by now."""
        if self.clip is not None and not self.automatic_optimization:
            self.clip_gradients(optimizer, self.clip, gradient_clip_algorithm="norm")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """After an optimizer step: the teacher follows, and schedules of own steps go on."""
        if self.global_step == self._position[1]:
            return
        if not self.automatic_optimization:
            found: Any = self.lr_schedulers()
            for schedule in found if isinstance(found, list) else [found] if found else []:
                schedule.step()
        if self.teacher is not None:
            self.teacher_steps += 1
            self.teacher.update(self.model, int(self.teacher_steps))

    @property
    def trained_parameters(self) -> int:
        """Scalars that training changes; of tables with a row per domain, the trained rows only."""
        return sum(size for _, size in self._trained())

    @property
    def trained_bytes(self) -> int:
        """Bytes of `trained_parameters`."""
        return sum(parameter.element_size() * size for parameter, size in self._trained())

    def _trained(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Parameters that require gradients, and how many of their scalars training changes."""
        num_domains, seen = self.model.num_domains, len(self.trained_domains)
        tables = {p for norm in self.model.norms() for p in norm.modulation.rows()}
        for parameter in self.parameters():
            if parameter.requires_grad:
                size = parameter.numel()
                yield parameter, size // num_domains * seen if parameter in tables else size

    @property
    def trained_domains(self) -> tuple[str, ...]:
        """Domains whose rows learn: those whose images reach ``training_step``, or share theirs."""
        seen = domains_of(self.labelled, self.roles) + domains_of(self.unlabelled, self.roles)
        return self.roles.lent(seen)

    def on_validation_epoch_start(self) -> None:
        """Start collecting for every validation domain."""
        self.open_collection()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect predictions of one batch."""
        self._collect(self._completed(batch, training=False))

    def on_validation_epoch_end(self) -> None:
        """Log ``val/<domain>/<metric>``, and the mean of the task's metric as ``val/selection``.

        The mean is over domains in which the metric exists.
        """
        scores, options = [], self.task.metric_options()
        for domain, evaluated in self.predictions().items():
            values = evaluated.metrics(**options)
            scores.append(values[self.task.metric])
            self.log_dict({f"val/{domain}/{key}": value for key, value in values.items()})
        self.log("val/selection", mean_of_known(scores), prog_bar=True)

    def on_test_epoch_start(self) -> None:
        """Start collecting for every test domain."""
        self.open_collection(encoded=self.deployed.encoder is not None)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect predictions of one batch, and how well the encoder tells its domains."""
        batch = self._completed(batch, training=False)
        self._collect(batch, self.tell(batch))

    def on_test_epoch_end(self) -> None:
        """Log ``test/<domain>/<metric>`` of domains with labels."""
        options = self.task.metric_options()
        for domain, one in self.predictions().items() if self.logs_tests else ():
            values = one.metrics(**options) if one.is_labelled else {}
            self.log_dict({f"test/{domain}/{key}": value for key, value in values.items()})

    def tell(self, batch: Batch) -> Estimate | None:
        """What the encoder says of a batch, which counts in `domains_told`; None without one."""
        if not self.collected.told:
            return None
        estimate = self.deployed.estimate_of(batch)
        self.collected.tell(estimate, batch)
        return estimate

    def predictions(self) -> dict[str, Evaluated]:
        """What the last validation or test collected, by domain; those without images have none."""
        return self.collected.predictions()

    def domains_told(self) -> dict[str, dict[str, float]]:
        """Metrics of the encoder by domain, after a test; empty without an encoder."""
        return self.collected.domains_told()

    def open_collection(self, *, encoded: bool = False) -> None:
        """Start `collected` anew, for `eval_domains`."""
        names, domains = self.model.domain_names, self.eval_domains
        self.collected = Collected(
            self.task, names, domains, self.device, restore=self.restore, encoded=encoded
        )

    def _collect(self, batch: Batch, estimate: Estimate | None = None) -> None:
        domain, model = self._shared(batch)["domain"], self.deployed
        if self.norm_domain is not None:
            row = model.domain_names.index(self.norm_domain)
            domain = torch.full_like(domain, row)
        given = {"domain": domain}
        if estimate is not None:
            given = model.conditioned(domain, estimate, self.condition)
        if (embedding := model.embedding_of(batch)) is not None:
            given["embedding"] = embedding
        self.keep(self.task.predict(model, batch["image"], **given), batch)

    def keep(self, logits: Tensor, batch: Batch) -> None:
        """Collect logits (N, K, ...) of a batch, each image for its domain."""
        self.collected.keep(logits, batch)

    def log_loss(self, loss: Tensor | Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Log ``train/loss``, and ``train/<name>`` where it is the sum of several; return it.

        Raises:
            DomainNormError: The loss is not finite; the message gives epoch and step.
        """
        named = loss if isinstance(loss, Mapping) else {"loss": loss}
        total: Tensor = functools.reduce(operator.add, named.values())
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True}
        options["batch_size"] = len(batch["target"])
        if len(named) > 1:
            parts = {f"train/{name}": part.detach() for name, part in named.items()}
            self.log_dict(parts, **options)
        self.log("train/loss", total.detach(), prog_bar=True, **options)
        if total.device.type == "cpu" and not math.isfinite(float(total.detach())):
            raise DomainNormError(
                f"training diverged: loss {float(total.detach())} at epoch {self.current_epoch}, "
                f"step {self.global_step}; lower method.lr or set trainer.gradient_clip"
            )
        return total
