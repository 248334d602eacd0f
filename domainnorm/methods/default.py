"""What a recipe does that names no method: self-training from the source model, and a guard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from domainnorm.backbones import DomainModel, set_rows
from domainnorm.evaluation.certainty import certainty_of
from domainnorm.methods.reestimation import (
    estimate_moments,
    moment_buffers,
    move_rows,
    own_moments,
)
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import over_ranks, split
from domainnorm.methods.self_training import SelfTraining
from domainnorm.registry import register
from domainnorm.tasks import Task

_LEAST_SHARE = 0.01  # of predictions, for a class that counts
_LEAST_MOVED = 0.5  # share of the target's moments
_FORGOTTEN = 0.1  # of its share before, below which a class is


@register
class Default(SelfTraining):
    """Learn a teacher's confident labels of the target, unless a guard finds that this harms.

    `SelfTraining` from the source model, with rows by ``rows``. Segmentation pastes half of the
    classes of a source mask into target images. Classification has a threshold for each class,
    lower for classes that the network finds hard.

    After training, the **guard** compares how well predictions of the weak and the strong view of
    target images agree (κ, see `agreement`), before and after adaptation. It keeps the source model
    unless ``κ_after - κ_before ≥ -guard · (1 - κ_changed)``, ``κ_changed`` being the agreement of
    the predictions before with those after; or if a class that the source model predicts is no
    longer predicted. `facts` say so. Self-training teaches views to agree: if it has changed
    predictions and failed even at that, its other effects cannot be trusted.

    Nothing is trained if the source model is too uncertain on target images to label them (see
    `Certainty`), since views can also agree on wrong labels. Then only running moments change: a
    target's rows take half of the target's moments, and more in layers where source and target
    differ (see `between`).

    Args:
        model: The source model.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        mix: What is pasted into target images, see `SelfTraining`.
        threshold_rule: ``auto`` is ``free`` for classes and ``fixed`` for masks; see
            `SelfTraining`.
        label_decay: Decay of the moving averages for ``free`` and ``prior``, in [0, 1); the default
            suits runs of some hundreds of steps.
        rows: Rows of the norms. ``one``: all domains share one row, which starts as the mean of the
            sources' rows. ``own``: as ``data.rows`` says. ``auto``: a run trains both if they
            differ, and keeps the model whose views agree more; a single fit trains ``one``.
        guard: Largest accepted fall of the agreement for what has changed, see above, in [-1, 1];
            below 0 it has to rise. 1 keeps every adaptation, even one that forgets classes, and
            checks no certainty.
        certainty: Least certainty of the source model on one of the targets, with its own moments
            or the target's, in [0, 1]; below it nothing is trained. 0 always trains.
        fallback: What replaces training below ``certainty``: re-estimated ``moments``, if norms
            have a row per domain, or the unchanged ``source`` model.
        **options: See `SelfTraining`.

    Attributes:
        known: Certainty of the source model; None where nothing has asked for it.

    Reference:
        Tarvainen and Valpola, NeurIPS 2017, arXiv:1703.01780, eq. 2; Tranheden et al., DACS, WACV
        2021, arXiv:2007.08702, alg. 1; Wang et al., FreeMatch, ICLR 2023, arXiv:2205.07246, eq. 5
        to 7.
    """

    starts_from: str = "source_only"

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        mix: Literal["auto", "none", "class", "cut"] = "auto",
        threshold_rule: Literal["auto", "fixed", "free"] = "auto",
        label_decay: float = 0.99,
        rows: Literal["auto", "one", "own"] = "auto",
        guard: float = -0.02,
        certainty: float = 0.55,
        fallback: Literal["moments", "source"] = "moments",
        **options: Any,
    ) -> None:
        if threshold_rule == "auto":
            threshold_rule = "fixed" if task.labels == "segmentation" else "free"
        self._chooses = rows == "auto" and roles.rows != "one"
        given: dict[str, Any] = {
            "mix": mix,
            "threshold_rule": threshold_rule,
            "label_decay": label_decay,
        }
        adapting = roles if rows == "own" else replace(roles, rows="one")
        super().__init__(model, task, adapting, **given, **options)
        self.guard = guard
        self.certainty = certainty
        self.fallback = fallback
        self.rows = rows
        self.known: float | None = None
        self._start: dict[str, Tensor] = {}

    @property
    def unsure(self) -> bool:
        """Whether the source model is kept since it is less certain than ``certainty``."""
        return self.known is not None and self.known < self.certainty

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """One row and own rows, where ``auto`` asks for both and they are not the same."""
        if not (self._chooses and any(self.model.domain_rows())):
            return {}
        return {"one_row": {"rows": "one"}, "own_rows": {"rows": "own"}}

    def setup(self, stage: str) -> None:
        """Remember the source model; the row that all share starts as the mean of the sources'.

        A checkpoint to go on from is loaded after this, and before `on_fit_start`.
        """
        if stage == "fit":
            self._start = {key: value.clone() for key, value in self.model.state_dict().items()}
            if self.roles.rows == "one":
                for lender in self.roles.lent(self.roles.all):
                    set_rows(self.model, lender, self.roles.source)

    def on_fit_start(self) -> None:
        """Train nothing where the source model knows too little."""
        super().on_fit_start()
        if self.guard < 1 and self.known is None:  # a resumed fit knows it, but not its steps yet
            self.known = self.trainer.strategy.broadcast(self._certainty())  # of ranks one decides
            self.trainer.should_stop = self.unsure

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What a resumed fit does not ask for again."""
        checkpoint["certainty"] = self.known

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self.known = checkpoint["certainty"]

    def on_train_epoch_start(self) -> None:
        """What the guard said of an earlier epoch is past."""
        self.finished = False

    def on_fit_end(self) -> None:
        """Keep the source model if predictions agree less, its weights where it knew too little."""
        self.finished = self.unsure
        self.facts = {} if self.known is None else {"certainty": self.known}
        if self.unsure:
            self._settle(self._start)
            self.merit = -1.0
            self.facts["adapted"] = 0.0
            if self.fallback == "moments" and own_moments(self.model):
                for name in self.roles.target:
                    move_rows(
                        self.model, self.sweep(domains=(name,), mixed=True), "layers", _LEAST_MOVED
                    )
                self._settle(self.model.state_dict())
                self.facts["moments"] = 1.0
            return
        super().on_fit_end()
        self.finished = True  # rows are equal now, and in the source model each domain's own
        adapted = {key: value.clone() for key, value in self.deployed.state_dict().items()}
        counts = self._counts(self._start, adapted)
        before, after, same = (agreement(one, known_to(counts[0])) for one in counts)
        lost = forgotten(*counts[:2])
        harms = after - before < -self.guard * (1 - same) or lost > 0
        self.finished = harms and self.guard < 1
        self._settle(self._start if self.finished else adapted)
        self.merit = -1.0 if self.finished else after  # the least that κ can be
        self.facts |= {
            "agreement_before": before,
            "agreement_after": after,
            "changed": 1 - same,
            "forgotten": lost,
            "adapted": float(not self.finished),
        }

    def _trained(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Nothing, where the source model was kept."""
        return iter(()) if self.facts.get("adapted") == 0 else super()._trained()

    def _settle(self, state: dict[str, Tensor]) -> None:
        for model in self.networks:
            model.load_state_dict(state)

    def _certainty(self) -> float:
        """Of the source model, on the target that it knows best, by the better of its moments."""
        known = max(map(self._certainty_on, self.roles.target))
        if known < self.certainty and moment_buffers(self.model):
            before = {key: value.clone() for key, value in self.model.state_dict().items()}
            for name in self.roles.target:
                estimate_moments(self.model, self.sweep(domains=(name,), mixed=True))
                known = max(known, self._certainty_on(name))
                self.model.load_state_dict(before)
        return known

    @torch.no_grad()
    def _certainty_on(self, domain: str) -> float:
        self.model.eval()
        known = certainty_of(map(self.outputs, self.sweep(domains=(domain,))))
        self.model.train()
        return known

    @torch.no_grad()
    def _counts(self, *states: dict[str, Tensor]) -> Tensor:
        """How often pairs of classes are predicted of the same target images, (3, K, K).

        Of the weak and the strong view under each of two states, and of the weak view under both.
        """
        loader: Any = self.trainer.train_dataloader
        seen: list[Tensor] = []
        for batch in loader:
            target = split(self.ready(batch))[1]
            weak, pairs = [], []
            for state in states:
                self.deployed.load_state_dict(state)
                self.deployed.eval()
                logits = self.outputs(target, model=self.deployed)
                strong = self.outputs(target, view="strong", model=self.deployed).argmax(1)
                weak.append(logits.argmax(1))
                pairs.append((weak[-1], strong))
            pairs.append((weak[0], weak[1]))
            seen.append(torch.stack([counts_of(*pair, logits.shape[1]) for pair in pairs]))
        return over_ranks(torch.stack(seen).sum(0))


def counts_of(first: Tensor, second: Tensor, num_classes: int) -> Tensor:
    """How often each pair of classes is predicted of two views: (K, K), float64."""
    pairs = torch.bincount((first * num_classes + second).flatten(), minlength=num_classes**2)
    return pairs.view(num_classes, num_classes).double()


def known_to(counts: Tensor) -> Tensor:
    """Classes that are at least a hundredth of all predictions, of many half their mean: (K,)."""
    return _shares(counts) >= min(_LEAST_SHARE, 0.5 / len(counts))


def forgotten(before: Tensor, after: Tensor) -> float:
    """Number of classes known before whose share of the predictions is less than a tenth now."""
    lost = known_to(before) & (_shares(after) < _FORGOTTEN * _shares(before))
    return float(lost.sum())


def _shares(counts: Tensor) -> Tensor:
    """Share of each class among the predictions of both views, (K,)."""
    return (counts.sum(0) + counts.sum(1)) / (2 * counts.sum())


def agreement(counts: Tensor, classes: Tensor) -> float:
    """Agreement of two predictions beyond chance: mean of Cohen's κ, at most 1.

    Of each class against the rest, with the shares ``a`` of both, ``r`` and ``c`` of one:
    ``κ = 2 (a - r c) / (r + c - 2 r c)``, 0 for a class that no or every prediction is. So
    a model that calls everything one class scores 0, though its views always agree; and over the
    classes that the source model knew, one that has forgotten some of them scores low.

    Args:
        counts: Of pairs of predicted classes, (K, K).
        classes: Which are averaged, (K,) bool, at least one.

    Reference:
        Cohen, A coefficient of agreement for nominal scales, Educ. Psychol. Meas. 20, 1960.
    """
    share = counts / counts.sum()
    both, first, second = share.diagonal(), share.sum(1), share.sum(0)
    chance = first * second
    possible = first + second - 2 * chance
    kappa = torch.where(possible > 0, 2 * (both - chance) / possible.clamp(min=1e-12), 0)
    return float(kappa[classes].mean())
