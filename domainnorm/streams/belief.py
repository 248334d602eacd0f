"""Which domain a stream is in: estimates of single images, smoothed over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Switches and images that a stream is taken to have shown before it begins, and how many images
# back the rate of switches is remembered.
_SWITCHES, _IMAGES, _MEMORY = 1.0, 50.0, 500.0


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
        """Take in images in order.

        Args:
            weights: Soft domain weights (N, D) of each image on its own.

        Returns:
            The belief at each image, (N, D), of the dtype and on the device of the weights.
        """
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
