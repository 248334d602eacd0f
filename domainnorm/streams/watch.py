"""Which domain each image of a stream is of, and whether that is a new one."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConditionError, DataError, DomainNormError

# Images that are kept of what may be a new domain, those of them that may follow an alarm within
# its batch only while there are few, and embeddings of each domain that was found.
_BUFFER, _FEW, _EMBEDDINGS = 32, 8, 200
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
        self.belief = state["belief"].cpu()
        self._switches, self._images = float(state["switches"]), float(state["images"])


class NoveltyAlarm:
    """Sequential test of whether images are unlike known domains too often.

    An image of a known domain is *unlike* it with a probability of at most ``rate``. For each image
    a part of the evidence is bet at fair odds, ``b = 0.7 + 0.3 · unlike / rate``, whose
    expectation is at most 1 under this bound. ``evidence ← max(1, evidence) · b``; an alarm is
    raised when it reaches ``run_length``. The expected number of images between false alarms is
    then at least ``run_length``, if images are drawn independently, like the held-out ones. Frames
    of a video are not independent; take every k-th.

    Args:
        run_length: Expected number of images between false alarms, above 1.

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
            raise DomainNormError(f"run_length: got {run_length}, expected a finite number")
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
        bet = 1 / rate if unlike else 0.0
        self.evidence = max(1.0, self.evidence) * (1 - _STAKE + _STAKE * bet)
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


@dataclass
class Sighting:
    """What is told of the images of one batch, by those before it and by themselves.

    Args:
        weights: Domain weights of each image, (N, D).
        unlike: Whether it is unlike all domains known then, (N,) bool.
        evidence: For a new domain, after each image, (N,); see `NoveltyAlarm`.
        alarm: Position in the batch at which there was an alarm.
        opened: The domain that was opened then; None where there was no room for another.
    """

    weights: Tensor
    unlike: Tensor
    evidence: Tensor
    alarm: int | None = None
    opened: str | None = None

    @property
    def domain(self) -> Tensor:
        """Labels (N,) of the largest weights."""
        return self.weights.argmax(1)


@dataclass
class Opening:
    """A row that is given to a new domain.

    Args:
        label: Of the row.
        images: That were unlike all domains, (N, 3, H, W).
        shares: Of the domains that these were taken for, by name; they sum to one.
    """

    label: int
    images: Tensor
    shares: dict[str, float]


class DomainWatch:
    """Estimates the domain of each image of a stream, and opens rows for new domains.

    The encoder's estimates are smoothed over time (`DomainBelief`), and `NoveltyAlarm` watches for
    images that are unlike all domains. At an alarm, one of the unused rows is opened for a new
    domain, which the encoder then knows by its newest embeddings. Embeddings of ambiguous images
    wait until they no longer point to another domain. Memory is bounded for streams of any length:
    32 images, and 200 embeddings for each row.

    Args:
        model: With a fitted encoder, in evaluation mode.
        rows: Labels of the domains that may be opened.
        run_length: Expected number of images between false alarms, see `NoveltyAlarm`.

    Raises:
        ConditionError: A model without encoder.
        DomainNormError: See `NoveltyAlarm`.
    """

    def __init__(self, model: DomainModel, rows: Collection[int], run_length: float) -> None:
        if model.encoder is None:
            raise ConditionError("a watch needs a model with an encoder: model.attach_encoder(...)")
        self.model, self.rows = model, tuple(rows)
        self.gaussians = model.encoder.gaussians
        self.labels: list[int] = self.gaussians.known.nonzero().flatten().tolist()
        self.belief = DomainBelief(len(self.labels))
        self.alarm = NoveltyAlarm(run_length)
        self._unlike: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_BUFFER)
        self._embeddings: dict[int, deque[Tensor]] = {}
        self._waiting: deque[tuple[int, Tensor]] = deque(maxlen=_EMBEDDINGS)

    @property
    def opened(self) -> list[str]:
        """Names of the domains that were opened, in this order."""
        return [self.model.domain_names[label] for label in self._embeddings]

    @torch.no_grad()
    def look(self, image: Tensor) -> Sighting:
        """What is told of the next images (N, 3, H, W) of the stream.

        Raises:
            DataError: No images, or one that is not finite; nothing has been learned then.
        """
        if not len(image):
            raise DataError("stream: a batch of no images, expected one or more")
        estimate = self.model.estimate(image)
        _check_finite(image, estimate.weights)
        weights = torch.zeros_like(estimate.weights)
        weights[:, self.labels] = self.belief.update(estimate.weights[:, self.labels])
        unlike, bounds = ~estimate.is_known, self.gaussians.false_alarms
        evidence, alarm = [], None
        for n in range(len(image)):
            rate = float(bounds[int(weights[n].argmax())])
            if alarm is None and self.alarm.update(bool(unlike[n]), rate):
                alarm = n
            # A batch may go on to yet another domain after an alarm.
            room = alarm in (None, n) or len(self._unlike) < _FEW
            if unlike[n] and room:
                self._unlike.append((image[n], estimate.embedding[n], weights[n]))
            elif not unlike[n] and self.alarm.is_quiet and alarm is None:
                self._unlike.clear()
            evidence.append(self.alarm.evidence if alarm != n else self.alarm.run_length)
        if alarm is None:
            own = zip(weights.argmax(1).tolist(), estimate.embedding, strict=True)
            self._waiting.extend(pair for pair in own if pair[0] in self._embeddings)
            if self.alarm.is_quiet:
                self._learn()
        return Sighting(weights, unlike, torch.tensor(evidence), alarm)

    def open(self) -> Opening | None:
        """After an alarm: a row for what was unlike all domains; None where none is left."""
        image, embedding, weights = (torch.stack(part) for part in zip(*self._unlike, strict=True))
        self._unlike.clear()
        self._waiting.clear()
        label = next((row for row in self.rows if not self.gaussians.known[row]), None)
        if label is None:
            return None
        mixture = weights.double().mean(0)
        shares = zip(self.model.domain_names, (mixture / mixture.sum()).tolist(), strict=True)
        self._embeddings[label] = deque(embedding, maxlen=_EMBEDDINGS)
        self.gaussians.add(embedding, label)
        self.labels.append(label)
        self.belief.open()
        return Opening(label, image, {name: share for name, share in shares if share})

    def _learn(self) -> None:
        """Know the domains that were opened by their newest images."""
        for label, known in self._embeddings.items():
            if own := [embedding for row, embedding in self._waiting if row == label]:
                known.extend(own)
                self.gaussians.add(torch.stack(list(known)), label)
        self._waiting.clear()

    @property
    def seen(self) -> dict[str, Any]:
        """What a killed stream goes on with beside the encoder: tensors and numbers alone."""
        return {
            "labels": self.labels,
            "belief": self.belief.state_dict(),
            "alarm": self.alarm.state_dict(),
            "unlike": [list(one) for one in self._unlike],
            "waiting": [list(one) for one in self._waiting],
            "embeddings": {label: list(known) for label, known in self._embeddings.items()},
        }

    @seen.setter
    def seen(self, state: dict[str, Any]) -> None:
        self.labels = list(state["labels"])
        self.belief.load_state_dict(state["belief"])
        self.alarm.load_state_dict(state["alarm"])
        self._unlike = deque(map(tuple, state["unlike"]), maxlen=_BUFFER)
        self._waiting = deque(map(tuple, state["waiting"]), maxlen=_EMBEDDINGS)
        self._embeddings = {
            label: deque(known, maxlen=_EMBEDDINGS) for label, known in state["embeddings"].items()
        }


def _check_finite(image: Tensor, weights: Tensor) -> None:
    """Refuse images, or estimates of them, that would stay in belief and rows for good."""
    finite = image.flatten(1).isfinite().all(1) & weights.isfinite().all(1)
    if not bool(finite.all()):
        position = int(finite.int().argmin())
        raise DataError(
            f"stream: image {position} of a batch of {len(image)} has values that are not finite, "
            "or too large to estimate its domain; leave it out"
        )
