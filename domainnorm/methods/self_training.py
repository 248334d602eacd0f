"""Self-training: what all methods share that learn labels which a network gives target images."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel, drop_tokens
from domainnorm.errors import DomainNormError, unknown
from domainnorm.losses import confusion_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.frozen import FrozenStart, deepest, feature_distance
from domainnorm.methods.mixing import Mixed, class_mix, cut_mix, mask_patches
from domainnorm.methods.pseudo_labels import PseudoLabels
from domainnorm.methods.reestimation import kept_but, kept_moments, own_moments
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import joined, over_ranks, split
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.tasks import Task


class SelfTraining(SupervisedMethod):
    """Supervised loss on the source, and confident labels of a teacher on changed target images.

    ``L = L_supervised(source) + target_weight · L_labels(strong, mixed) + masked_weight ·
    L_labels(strong, masked) + distance_weight · feature_distance(distance_of)``

    The teacher is a moving average of the network and its running moments. It labels the weak view
    of target images; without a teacher the network itself does, in training mode. `PseudoLabels`
    chooses the confident labels. The network learns them on the strong view; ``mix`` pastes parts
    of other images into it, and ``mask_ratio`` hides parts of it. Source images and strong or mixed
    images are one batch, each under the rows of its domain. Only the weak view updates the running
    moments of the target, since strong, mixed and masked images belong to no domain. Where both
    roles share moments (``data.rows: one``, or norms that ignore domains, in some layers or all),
    the moments of the one batch normalize both and update the running ones. The teacher is tested
    and saved; without a teacher the network is.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        decay: Decay of the teacher's moving average, in [0, 1); null for no teacher.
        threshold: Least confidence of a pseudo-label for ``fixed``, in [0, 1].
        threshold_rule: ``fixed``, or ``free``: each class has a threshold that follows confidence.
        prior: Class distribution of the target to which pseudo-labels are aligned: ``none``,
            ``uniform``, ``estimated`` (that of the source labels), or ``start`` (that of the source
            model's predictions on target images).
        label_decay: Decay of the moving averages for ``free`` and ``prior``, in [0, 1).
        quality: How the loss counts labels. ``mean``: mean over confident labels. ``sum``: their
            sum, divided by the number of all labels. ``share``: mean over all labels, times the
            share of confident ones in the batch; pixels pasted from the source count fully.
        target_weight: Weight of the loss on target images.
        mix: What is pasted into target images. ``class``: half of the classes of a source mask,
            with their labels (segmentation). ``cut``: a box of another target image. ``none``:
            nothing. ``auto``: ``class`` for segmentation, else ``none``.
        confusion_weight: Weight of `confusion_loss` on the same images, at least 0.
        fairness_weight: Weight, at least 0, of `PseudoLabels.fairness_loss` on the same images,
            where their labels are learned and are not the source's.
        masked_weight: Weight of the loss on masked target images; 0 masks none.
        mask_ratio: Share of patches that is masked, in [0, 1].
        mask_by: ``pixels`` sets patches to 0. ``tokens`` masks tokens of a vision transformer, so
            the network knows which parts are hidden; see `drop_tokens`.
        mask_size: Side of a patch in pixels; null takes an eighth of the image's shorter side.
            Tokens keep their own size.
        label_flips: Average the prediction of an image with that of its mirror image for labels.
        distance_weight: Weight, at least 0, of the distance between features and those of the
            network before training (segmentation: the deepest maps of the encoder); 0 for none.
        distance_of: Images for the distance: ``source``, or ``all`` of the batch.
        distance_rule: ``euclidean`` or ``cosine``, see `feature_distance`.
        distance_classes: Classes of source labels whose cells count in the distance; null for all.
        **options: See `SupervisedMethod`.

    Attributes:
        own_rows: Labels of target domains whose moments are theirs alone; none where the source has
            the same rows.

    Raises:
        DomainNormError: ``mix: class`` for a task without masks, ``prior: start`` for a method that
            starts from no source model, an unknown class, or tokens of a network without them.
    """

    labelled: str = "source"
    unlabelled: str = "target"
    starts_from: str = "backbone"
    balance: str = "role"
    views: str = "two"
    may_average: bool = False  # its teacher gives labels, too
    tasks: tuple[str, ...] = ("classification", "segmentation")
    for_masks: tuple[tuple[str, str], ...] = (("mix", "class"),)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        decay: float | None = 0.99,
        threshold: float = 0.9,
        threshold_rule: Literal["fixed", "free"] = "fixed",
        prior: Literal["none", "uniform", "estimated", "start"] = "none",
        label_decay: float = 0.999,
        quality: Literal["mean", "sum", "share"] = "mean",
        target_weight: float = 1.0,
        mix: Literal["auto", "none", "class", "cut"] = "none",
        confusion_weight: float = 0.0,
        fairness_weight: float = 0.0,
        masked_weight: float = 0.0,
        mask_ratio: float = 0.7,
        mask_by: Literal["pixels", "tokens"] = "pixels",
        mask_size: int | None = None,
        label_flips: bool = False,
        distance_weight: float = 0.0,
        distance_of: Literal["source", "all"] = "source",
        distance_rule: Literal["euclidean", "cosine"] = "euclidean",
        distance_classes: list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        masks = task.labels == "segmentation"
        if mix == "class" and not masks:
            raise DomainNormError("method.mix: 'class' mixes masks; take 'cut' for this task")
        if prior == "start" and self.starts_from != "source_only":
            raise DomainNormError(
                "method.prior: 'start' needs a source model, but this method starts from the "
                "backbone; take 'estimated'"
            )
        if mask_by == "tokens" and masked_weight:
            with drop_tokens(model, mask_ratio):  # refuses networks without
                pass
        lent = [model.domain_names.index(name) for name in roles.lent(roles.target)]
        source = [model.domain_names.index(name) for name in roles.lent(roles.source)]
        self.own_rows = [row for row in lent if row not in source] if own_moments(model) else []
        self.mix = mix if mix != "auto" else "class" if masks else "none"
        self.quality = quality
        self.target_weight = target_weight
        self.confusion_weight = confusion_weight
        self.fairness_weight = fairness_weight
        self.masked_weight = masked_weight
        self.mask_ratio, self.mask_by, self.mask_size = mask_ratio, mask_by, mask_size
        self.label_flips = label_flips
        self.distance_weight = distance_weight
        self.distance_of, self.distance_rule = distance_of, distance_rule
        self.distance_classes = _positions(distance_classes or [], task.class_names)
        self.pseudo_labels = PseudoLabels(
            *(len(task.class_names), threshold, threshold_rule, prior, label_decay),
            fair=fairness_weight > 0,
        )
        self.frozen = FrozenStart(model, masks) if distance_weight else None
        if decay is not None:
            self.follow(decay)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss on the source, and that of pseudo-labels on changed target images."""
        source, target = split(batch)
        label, sure = self._labels_of(source, target)
        share = over_ranks(sure.float().mean())
        if self.quality != "share":
            label = torch.where(sure, label, -1)
        guessed = self._mixed(label, source, target)
        losses: dict[str, Tensor] = {}
        known = batch["labelled"]
        image = batch["image"].masked_scatter(~known.view(-1, 1, 1, 1), guessed.image)
        changed = {**batch, "image": image}
        with kept_moments(self.model, self.own_rows):
            logits, features = self._described(changed)
        if features is not None:
            losses["distance"] = self.distance_weight * self._distance(features, changed)
        losses["supervised"] = self.task.loss(logits[known], source["target"])
        losses["target"] = self.target_weight * self._learned(logits[~known], guessed, share)
        if self.masked_weight:
            masked = Mixed(target["strong"], [(1.0, label)])
            loss = self._learned(self._masked(target), masked, share)
            losses["masked"] = self.masked_weight * loss
        return losses

    def on_fit_start(self) -> None:
        """The teacher and the copy of the start are as the model, whose weights are loaded now."""
        super().on_fit_start()
        if self.frozen is not None:
            self.frozen.take(self.model)
        self._anchor()

    @torch.no_grad()
    def _anchor(self) -> None:
        """The prior ``start``, which alone looks at the images."""
        training = self.deployed.training
        self.deployed.eval()
        told = (self.outputs(batch, model=self.deployed) for batch in self.sweep())
        self.pseudo_labels.anchor(told)
        self.deployed.train(training)

    def _described(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits, and where a distance is wanted what it is measured of."""
        if self.frozen is None:
            return self.outputs(batch), None
        if not self.frozen.masks:
            features, logits = self.features(batch)
            return logits, features
        seen: list[Tensor] = []
        encoder: Any = self.model.backbone.encoder
        hook = encoder.register_forward_hook(lambda _, __, maps: seen.append(deepest(maps)))
        try:
            logits = self.outputs(batch)
        finally:
            hook.remove()
        return logits, seen[0]

    def _distance(self, features: Tensor, batch: Batch) -> Tensor:
        """How far features of images are from those of the start."""
        assert self.frozen is not None
        if self.distance_of == "source":
            features, batch = features[batch["labelled"]], split(batch)[0]
        with torch.no_grad():
            if self.frozen.masks:
                start = deepest(self.outputs(batch, model=self.frozen.model))
            else:
                start = self.features(batch, model=self.frozen.model)[0]
        chosen = batch["target"], self.distance_classes
        return feature_distance(features, start, *chosen, rule=self.distance_rule)

    @torch.no_grad()
    def _labels_of(self, source: Batch, target: Batch) -> tuple[Tensor, Tensor]:
        """Labels of target images by their weak view, and which are sure."""
        if self.teacher is not None and self.own_rows:
            self._seen(target)
        told = self._logits_of(target)
        if self.label_flips:
            with kept_moments(self.model):
                mirrored = self._logits_of({**target, "image": target["image"].flip(-1)})
            mirrored = mirrored.flip(-1) if mirrored.ndim > 2 else mirrored
            told = torch.logaddexp(told.log_softmax(1), mirrored.log_softmax(1))
        found: tuple[Tensor, Tensor] = self.pseudo_labels(told, source["target"])
        return found

    def _logits_of(self, target: Batch) -> Tensor:
        """Logits of target images by the teacher, or without one by the network in training."""
        if self.teacher is not None:
            return self.outputs(target, model=self.deployed)
        return self._seen(target)

    def _seen(self, target: Batch) -> Tensor:
        """Logits in training mode, in which the target's own moments follow its images."""
        with kept_but(self.model, self.own_rows):
            return self.outputs(target)

    def _mixed(self, label: Tensor, source: Batch, target: Batch) -> Mixed:
        if self.mix == "class":
            return class_mix(target["strong"], label, source["image"], source["target"])
        if self.mix == "cut":
            return cut_mix(target["strong"], label)
        return Mixed(target["strong"], [(1.0, label)])

    def _masked(self, target: Batch) -> Tensor:
        """Logits of strong views of which parts are hidden, which move no running moments."""
        with kept_moments(self.model):
            if self.mask_by == "tokens":
                with drop_tokens(self.model, self.mask_ratio):
                    return self.outputs(target, view="strong")
            image = mask_patches(target["strong"], self.mask_ratio, self.mask_size)
            return self.outputs({**target, "image": image})

    def _learned(self, logits: Tensor, mixed: Mixed, share: Tensor) -> Tensor:
        """Loss of pseudo-labels on changed images, of which ``share`` are sure."""
        losses = []
        for part, label in mixed.parts:
            for weight, chosen in self._weighed(label, mixed.pasted, share):
                losses.append(part * weight * self.task.loss(logits, chosen))
        total = torch.stack(losses).sum()
        if self.confusion_weight:
            total = total + self.confusion_weight * confusion_loss(joined(logits))
        if self.fairness_weight:
            weight = torch.stack([part * (label >= 0) for part, label in mixed.parts]).sum(0)
            if mixed.pasted is not None:
                weight = weight.masked_fill(mixed.pasted, 0)
            fairness: Tensor = self.pseudo_labels.fairness_loss(logits, weight)
            total = total + self.fairness_weight * fairness
        return total

    def _weighed(
        self, label: Tensor, pasted: Tensor | None, share: Tensor
    ) -> list[tuple[Tensor | float, Tensor]]:
        """Labels, −1 for none, and the weight of the mean loss over them; see ``quality``."""
        if self.quality == "mean":
            return [(1.0, label)]
        if self.quality == "sum":
            return [((label >= 0).float().mean(), label)]
        if pasted is None:
            return [(share, label)]
        known = pasted.float().mean()
        return [
            (known, torch.where(pasted, label, -1)),
            ((1 - known) * share, torch.where(pasted, -1, label)),
        ]


def _positions(names: list[str], class_names: list[str]) -> tuple[int, ...]:
    for name in names:
        if name not in class_names:
            raise DomainNormError(f"method.distance_classes: {unknown('class', name, class_names)}")
    return tuple(class_names.index(name) for name in names)
