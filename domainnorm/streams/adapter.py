"""A model that follows a stream of images: which domain it is in, whether that is a new one."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel, add_domain, mix_rows
from domainnorm.errors import CheckpointError, ConditionError, DataError, DomainNormError
from domainnorm.streams.stream_row import StreamRow
from domainnorm.tasks import Task

# Images that are kept of what may be a new domain, and embeddings of each that was found.
_BUFFER, _EMBEDDINGS = 32, 200
# Switches and images that a stream is taken to have shown before it begins, and how many images
# back the rate of switches is remembered.
_SWITCHES, _IMAGES, _MEMORY = 1.0, 50.0, 500.0
# Share of the evidence that is bet on each image.
_STAKE = 0.3


class DomainBelief:
    """The domain of each image of a stream as a hidden Markov chain, filtered forwards.

    ``prior[t] = (1 - h) belief[t-1] + h / D``, ``belief[t] ∝ prior[t] · weights[t]``, where the
    weights of image t are its posterior under equal priors, which is its likelihood up to a factor.
    The rate ``h`` at which the domain is drawn anew is learned from the stream: the mean posterior
    probability that it was, of 500 images at most. In a drive it stays near its start of 1 in 50,
    in shuffled images it rises until each is judged on its own.

    Args:
        num_domains: D.

    Reference:
        Rabiner, A tutorial on hidden Markov models, Proc. IEEE 1989, eq. 20 (forward procedure).
    """

    def __init__(self, num_domains: int) -> None:
        self.belief = torch.full((num_domains,), 1 / num_domains, dtype=torch.float64)
        self._switches, self._images = _SWITCHES, _IMAGES

    @property
    def hazard(self) -> float:
        """h, the probability that the next image draws its domain anew."""
        return self._switches / self._images

    def update(self, weights: Tensor) -> Tensor:
        """The belief at each image, (N, D), by the domain weights (N, D) of each on its own."""
        found = torch.stack([self._step(row) for row in weights.double().cpu()])
        return found.to(weights)

    def _step(self, weights: Tensor) -> Tensor:
        drawn = self.hazard / len(self.belief)
        prior = (1 - self.hazard) * self.belief + drawn
        joint = prior * weights
        total = joint.sum()  # at least drawn, since weights sum to one
        switched = float(drawn * weights.sum() / total)
        keep = 1 - 1 / _MEMORY if self._images >= _MEMORY else 1.0
        self._switches = keep * self._switches + switched
        self._images = keep * self._images + 1
        self.belief = joint / total
        return self.belief

    def open(self, share: float = 0.5) -> None:
        """One more domain, the last, in which the stream is with this probability."""
        self.belief = torch.cat([(1 - share) * self.belief, self.belief.new_tensor([share])])

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs."""
        return {"belief": self.belief, "switches": self._switches, "images": self._images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self.belief = state["belief"]
        self._switches, self._images = float(state["switches"]), float(state["images"])


class NoveltyAlarm:
    """Sequential test of whether images are unlike known domains more often than they may be.

    An image of a known domain is *unlike* it with a probability of at most ``rate``. On each image
    a part of the evidence is bet at fair odds, ``b = 0.7 + 0.3 · unlike / rate``, whose
    expectation is at most 1 as long as that holds; ``evidence ← max(1, evidence) · b``, and an
    alarm is raised where it reaches ``run_length``. Then at least ``run_length`` images lie, in
    expectation, between false alarms: images that are drawn independently, as the held-out ones
    were. Frames of a video are not; take every k-th.

    Args:
        run_length: Images between false alarms, more than 1.

    Raises:
        DomainNormError: A run length of 1 or less, or an infinite one.

    Reference:
        Vovk et al., Testing randomness online, Statistical Science 2021, arXiv:1906.09256, sec. 4
        (CUSUM of conformal bets); Lorden, Procedures for reacting to a change in distribution,
        Annals of Mathematical Statistics 1971, theorem 2 (run length).
        Differs: bets on one event, beyond a threshold, with a bound on its probability given the
        held-out images, so that what follows a change never enters what it is compared with.
    """

    def __init__(self, run_length: float = 10_000) -> None:
        if not run_length > 1:
            raise DomainNormError(f"run_length: got {run_length}, expected more than 1 image")
        if math.isinf(run_length):
            raise DomainNormError(
                f"run_length: got {run_length}, expected a finite number of images; to open no "
                "domain, set max_domains (`--max-domains`) to 0"
            )
        self.run_length = run_length
        self.evidence = 1.0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing speaks for a new domain."""
        return self.evidence <= 1

    def update(self, unlike: bool, rate: float) -> bool:
        """Take in one image.

        Args:
            unlike: Whether it is unlike all known domains.
            rate: Bound on the probability of that, in (0, 1]; at 1 nothing is bet.

        Returns:
            Whether this is an alarm; the evidence then starts anew.
        """
        self.evidence = max(1.0, self.evidence) * (1 - _STAKE + _STAKE * unlike / rate)
        raised = self.evidence >= self.run_length
        if raised:
            self.evidence = 1.0
        return raised

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs."""
        return {"evidence": self.evidence}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self.evidence = float(state["evidence"])


@dataclass(frozen=True)
class StreamStep:
    """What came of one batch.

    Args:
        output: What the task predicts, (N, K, …); from what came before this batch alone.
        weights: Domain weights that the norms were given, (N, D).
        unlike: Whether each image is unlike all domains known then, (N,) bool.
        evidence: For a new domain, after each image, (N,); see `NoveltyAlarm`.
        alarm: Position in the batch at which there was an alarm.
        opened: The domain that was opened then; None: there is no room for another.
    """

    output: Tensor
    weights: Tensor
    unlike: Tensor
    evidence: Tensor
    alarm: int | None = None
    opened: str | None = None


class StreamAdapter:
    """Predicts a stream in order, and opens a domain for what is unlike all that it knows.

    For every batch: the encoder's estimates are smoothed over time (`DomainBelief`) and condition
    the norms, which gives the predictions; `NoveltyAlarm` watches for images that are unlike all
    domains. At an alarm a domain is added whose rows start as the mixture of domains that the
    unlike images were taken for, and which learns (`StreamRow`) from them and from all images
    that are later taken for its own. Rows of other domains stay bit for bit, so coming back to
    one costs nothing. Memory is bounded, whatever the length of the stream.

    Args:
        model: With a fitted encoder; changed in place and left in evaluation mode.
        task: How the model predicts.
        run_length: Images between false alarms, in expectation; see `NoveltyAlarm`.
        max_domains: How many domains may be opened.
        share: Largest part of the stream's moments in those of a new domain; see `StreamRow`.
        prior: Images of a new domain after which half of that part is reached.
        depth: Part of the norm layers, from the input on, that take on such moments.
        lr: Of entropy minimization in new domains; 0 for statistics alone.

    Raises:
        ConditionError: A model without encoder, or with one that reads attributes.
        DomainNormError: Options out of range, or a task for which entropy is not defined.

    Example:
        >>> adapter = StreamAdapter(model, task)
        >>> for images in stream:
        ...     step = adapter(images)
    """

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        *,
        run_length: float = 10_000,
        max_domains: int = 8,
        share: float = 0.2,
        prior: float = 32,
        depth: float = 0.75,
        lr: float = 0.0,
    ) -> None:
        if model.encoder is None:
            raise ConditionError(
                "a stream of several domains needs an encoder, and this model has none; train with "
                "'encoder: style' in the recipe, model.attach_encoder(...), or name a method for "
                "images of one domain, method=neo"
            )
        if model.reads_attributes:
            raise ConditionError(
                "a stream is of images alone, and this model's encoder reads their attributes; "
                "train with 'encoder: style', 'backbone' or 'cnn'"
            )
        self._learning = {"share": share, "prior": prior, "depth": depth, "lr": lr}
        for name, value in {"max_domains": max_domains, **self._learning}.items():
            if not (value >= 0 and math.isfinite(value)):
                raise DomainNormError(f"{name}: got {value}, expected 0 or more, and finite")
        for name, value in (("share", share), ("depth", depth)):
            if value > 1:
                raise DomainNormError(f"{name}: got {value}, expected at most 1")
        if lr and task.labels == "multilabel":
            raise DomainNormError("lr: findings do not exclude each other; set it to 0")
        self.model, self.task = model.eval().requires_grad_(False), task
        self.max_domains = max_domains
        self.belief = DomainBelief(model.num_domains)
        self.alarm = NoveltyAlarm(run_length)
        self.rows: dict[str, StreamRow] = {}
        self.num_images = 0
        self._unlike: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_BUFFER)
        self._embeddings: dict[str, deque[Tensor]] = {}

    def __call__(self, image: Tensor) -> StreamStep:
        """Predict images (N, 3, H, W) in order, then learn from them.

        Raises:
            DataError: No images, or one that is not finite; nothing has been learned then.
        """
        if not len(image):
            raise DataError("stream: a batch of no images, expected one or more")
        with torch.no_grad():
            estimate = self.model.estimate(image)
            _check_finite(image, estimate.weights)
            weights = self.belief.update(estimate.weights)
            output = self.task.predict(self.model, image, weights=weights)
        unlike = ~estimate.is_known
        evidence, alarm, opened = [], None, None
        assert self.model.encoder is not None
        bounds = self.model.encoder.gaussians.false_alarms
        for n in range(len(image)):
            if alarm is None:
                rate = float(bounds[int(weights[n].argmax())])
                if self.alarm.update(bool(unlike[n]), rate):
                    alarm = n
            if unlike[n]:
                self._unlike.append((image[n], estimate.embedding[n], weights[n]))
            elif self.alarm.is_quiet and alarm is None:
                self._unlike.clear()
            evidence.append(self.alarm.evidence if alarm != n else self.alarm.run_length)
        self.num_images += len(image)
        self._learn(image, estimate.embedding, weights)
        if alarm is not None:
            opened = self._open() if len(self.rows) < self.max_domains else None
            self._unlike.clear()
        return StreamStep(output, weights, unlike, torch.tensor(evidence), alarm, opened)

    def _learn(self, image: Tensor, embedding: Tensor, weights: Tensor) -> None:
        """Let the domains that were opened learn from the images that are taken for theirs."""
        for name, row in self.rows.items():
            own = weights.argmax(1) == self.model.domain_names.index(name)
            if bool(own.any()):
                row.update(image[own])
                self._know(name, embedding[own])

    def _know(self, name: str, embedding: Tensor) -> None:
        """Let the encoder know a domain by its newest embeddings."""
        assert self.model.encoder is not None
        known = self._embeddings[name]
        known.extend(embedding)
        row = self.model.domain_names.index(name)
        self.model.encoder.gaussians.add(torch.stack(list(known)), row)

    def _open(self) -> str:
        image, embedding, weights = (torch.stack(part) for part in zip(*self._unlike, strict=True))
        name = self._free_name()
        self._add(name)
        mixture = weights.double().mean(0)
        shares = zip(self.model.domain_names, (mixture / mixture.sum()).tolist(), strict=False)
        mix_rows(self.model, name, dict(shares))
        self.rows[name] = StreamRow(self.model, name, **self._learning)
        self._know(name, embedding)
        self.rows[name].update(image)
        self.belief.open()
        return name

    def _add(self, name: str) -> None:
        add_domain(self.model, name)
        self._embeddings[name] = deque(maxlen=_EMBEDDINGS)

    def _free_name(self) -> str:
        taken = self.model.domain_names
        return next(n for k in range(1, len(taken) + 2) if (n := f"found_{k}") not in taken)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs, tensors and numbers alone."""
        return {
            "num_images": self.num_images,
            "belief": self.belief.state_dict(),
            "alarm": self.alarm.state_dict(),
            "unlike": [list(one) for one in self._unlike],
            "rows": {name: row.state_dict() for name, row in self.rows.items()},
            "embeddings": {name: list(known) for name, known in self._embeddings.items()},
            "model": {name: self._owned(name) for name in self.rows},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where an adapter of the same model and options stopped.

        Raises:
            CheckpointError: The state is of another model.
        """
        device = next(self.model.parameters()).device
        for name, owned in state["model"].items():
            self._add(name)
            if {key: value.shape for key, value in owned.items()} != {
                key: value.shape for key, value in self._owned(name).items()
            }:
                raise CheckpointError("the state of the stream is of another model")
            self._own(name, owned)
            self._embeddings[name].extend(known.to(device) for known in state["embeddings"][name])
            self.rows[name] = StreamRow(self.model, name, **self._learning)
            self.rows[name].load_state_dict(state["rows"][name])
        self.num_images = int(state["num_images"])
        self.belief.load_state_dict(state["belief"])
        self.alarm.load_state_dict(state["alarm"])
        for image, embedding, weights in state["unlike"]:
            self._unlike.append((image.to(device), embedding.to(device), weights.to(device)))

    def _owned(self, name: str) -> dict[str, Tensor]:
        row = self.model.domain_names.index(name)
        return {key: tensor[row].detach().clone() for key, tensor in self._tensors().items()}

    @torch.no_grad()
    def _own(self, name: str, owned: dict[str, Tensor]) -> None:
        row = self.model.domain_names.index(name)
        for key, tensor in self._tensors().items():
            tensor[row] = owned[key].to(tensor.device)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors with a row per domain, those of the encoder included."""
        assert self.model.encoder is not None
        gaussians = self.model.encoder.gaussians
        found = {owned.key: owned.tensor for owned in self.model.domain_rows()}
        return found | {f"encoder.{key}": getattr(gaussians, key) for key in gaussians.row_names}


def _check_finite(image: Tensor, weights: Tensor) -> None:
    """Refuse images, or estimates of them, that would stay in belief and rows for good."""
    finite = image.flatten(1).isfinite().all(1) & weights.isfinite().all(1)
    if not bool(finite.all()):
        position = int(finite.int().argmin())
        raise DataError(
            f"stream: image {position} of a batch of {len(image)} is not finite, or too large for "
            "an estimate of its domain; leave it out"
        )
