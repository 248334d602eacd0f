"""What all methods share: evaluation and logging."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.encoders import Estimate
from domainnorm.errors import DomainNormError
from domainnorm.evaluation import Evaluated
from domainnorm.methods.conditions import (
    Conditioned,
    DomainsTold,
    conditioned,
    embedding_of,
    estimate_of,
)
from domainnorm.tasks import Task

Batch = dict[str, Any]  # tensors; attributes are lists of text, masks at their own size a list
# Outputs (K, H, W) for an input, and the mask (h, w) of its image as the dataset has it -> outputs
# (K, h, w), and classes (h, w) with −1 for none.
Restore: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Roles:
    """Which domains of the model are source and which are target.

    Args:
        source: Names of labelled domains to learn from.
        target: Names of domains to adapt to.
    """

    source: tuple[str, ...]
    target: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Source domains, then target domains: the order of the model's rows."""
        return self.source + self.target


class Method(LightningModule):
    """One adaptation algorithm over a `DomainModel`.

    Class constants say what a method may see; the data module is built from them, so a method
    cannot reach more: ``labelled`` and ``unlabelled`` name roles (``"source"``, ``"target"``,
    ``"all"`` or ``""``); ``starts_from`` is ``"backbone"`` or ``"source_only"``; ``augmented``
    tells whether training images go through the augmentations of the recipe; ``needs`` is what
    it cannot do without in the norms, ``"moments"`` (running ones), ``"weights"``, or ``""``.

    Args:
        model: The network; trained in place.
        task: Supervised loss and metrics.
        roles: Source and target domains.
    """

    labelled: str = ""
    unlabelled: str = ""
    starts_from: str = "source_only"
    augmented: bool = True
    needs: str = ""

    def __init__(self, model: DomainModel, task: Task, roles: Roles) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.roles = roles
        self.norm_domain: str | None = None
        self.condition: Conditioned = "id"
        self.eval_domains: Sequence[str] = ()
        self.restore: Restore | None = None
        self._stores: nn.ModuleList = nn.ModuleList()
        self._told: nn.ModuleList = nn.ModuleList()

    @property
    def max_epochs(self) -> int | None:
        """Epochs this method wants instead of the trainer's; None for the trainer's."""
        return None

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
        """Domains whose images reach ``training_step``."""
        return domains_of(self.labelled, self.roles) + domains_of(self.unlabelled, self.roles)

    def forward(self, image: Tensor, domain: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Logits (N, K, ...) of images (N, 3, H, W) under the norms of ``domain`` (N,)."""
        logits: Tensor = self.model(image, domain, embedding=embedding)
        return logits

    def outputs(self, batch: Batch) -> Tensor:
        """Logits (N, K, ...) of a batch, each image under the norms of its domain."""
        logits: Tensor = self(batch["image"], batch["domain"], embedding_of(self.model, batch))
        return logits

    def on_validation_epoch_start(self) -> None:
        """Start collecting for every validation domain."""
        self._open_stores()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect predictions of one batch."""
        self._collect(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/<domain>/<metric>``, and the mean of the task's metric as ``val/selection``."""
        scores, options = [], self.task.metric_options()
        for domain, evaluated in self.predictions().items():
            values = evaluated.metrics(**options)
            scores.append(values[self.task.metric])
            self.log_dict({f"val/{domain}/{key}": value for key, value in values.items()})
        self.log("val/selection", sum(scores) / len(scores))

    def on_test_epoch_start(self) -> None:
        """Start collecting for every test domain."""
        self._open_stores()
        count = len(self.eval_domains) if self.model.encoder is not None else 0
        self._told = nn.ModuleList(DomainsTold() for _ in range(count)).to(self.device)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect predictions of one batch, and how well the encoder tells its domains."""
        estimate = None
        if self._told:
            told: Any = self._told[dataloader_idx]
            estimate = estimate_of(self.model, batch)
            told.update(estimate, batch["domain"])
        self._collect(batch, dataloader_idx, estimate)

    def predictions(self) -> dict[str, Evaluated]:
        """What the last validation or test collected, by domain."""
        stores: Any = self._stores
        return {
            domain: store.compute() for domain, store in zip(self.eval_domains, stores, strict=True)
        }

    def domains_told(self) -> dict[str, dict[str, float]]:
        """Metrics of the encoder in the last test, by domain; empty without an encoder."""
        told: Any = self._told
        return {domain: one.compute() for domain, one in zip(self.eval_domains, told, strict=False)}

    def _open_stores(self) -> None:
        stores = [self.task.store() for _ in self.eval_domains]
        self._stores = nn.ModuleList(stores).to(self.device)

    def _collect(self, batch: Batch, position: int, estimate: Estimate | None = None) -> None:
        domain = batch["domain"]
        if self.norm_domain is not None:
            row = self.model.domain_names.index(self.norm_domain)
            domain = torch.full_like(domain, row)
        given = {"domain": domain}
        if estimate is not None:
            given = conditioned(self.model, domain, estimate, self.condition)
        embedding = embedding_of(self.model, batch)
        if embedding is not None:
            given["embedding"] = embedding
        logits = self.task.predict(self.model, batch["image"], **given)
        store: Any = self._stores[position]
        if "original" not in batch:
            store.update(logits, batch["target"], batch["index"])
            return
        assert self.restore is not None
        for one, truth, index in zip(logits, batch["original"], batch["index"], strict=True):
            restored, classes = self.restore(one, truth)
            store.update(restored[None], classes[None], index[None])

    def log_loss(self, loss: Tensor, batch: Batch) -> Tensor:
        """Log ``train/loss`` and return it.

        Raises:
            DomainNormError: The loss is not finite; the message gives epoch and step.
        """
        self.log(
            "train/loss",
            loss.detach(),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
            batch_size=len(batch["target"]),
        )
        if loss.device.type == "cpu" and not math.isfinite(float(loss.detach())):
            raise DomainNormError(
                f"training diverged: loss {float(loss.detach())} at epoch {self.current_epoch}, "
                f"step {self.global_step}; lower method.lr or set trainer.gradient_clip"
            )
        return loss


def domains_of(role: str, roles: Roles) -> tuple[str, ...]:
    """Names of the domains that a class constant means."""
    meaning = {"source": roles.source, "target": roles.target, "all": roles.all, "": ()}
    return meaning[role]


def head_parameters(model: DomainModel) -> list[nn.Parameter]:
    """Parameters of the network's classifier or segmentation head; empty when it names none."""
    network: Any = model.backbone
    if hasattr(network, "segmentation_head"):
        heads: Any = (network.segmentation_head,)
    elif hasattr(network, "get_classifier"):
        head = network.get_classifier()
        heads = head if isinstance(head, tuple) else (head,)
    else:
        heads = ()
    return [parameter for module in heads for parameter in module.parameters()]
