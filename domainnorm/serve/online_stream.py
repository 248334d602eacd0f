"""A stream of files of one domain, followed by a method that adapts while it predicts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.errors import ConditionError, RecipeError
from domainnorm.methods import OnlineModel, adapt_online
from domainnorm.recipe import Named
from domainnorm.registry import METHODS
from domainnorm.serve.stored import StoredModel
from domainnorm.streams import StreamStep
from domainnorm.tasks import Task


class OnlineStream:
    """`OnlineModel` as `StreamAdapter` is: steps, and a state to go on from.

    Args:
        stored: The model.
        task: Of its run.
        method: What it adapts by.
        domain: Whose images the stream has; None for the one target of the run, or only domain.

    Raises:
        ConditionError: Several domains, and none is named.
        RecipeError: A method that does not predict while it adapts.
    """

    def __init__(self, stored: StoredModel, task: Task, method: Named, domain: str | None) -> None:
        if METHODS.load(method.name).protocol != "online":
            names = [name for name in METHODS.names() if METHODS.load(name).protocol == "online"]
            text = f"method: '{method.name}' trains before it predicts, and a stream has no end"
            raise RecipeError([f"{text}; take one of {', '.join(names)}"], "domainnorm adapt")
        self.model = stored.model
        named = domain or _only(stored)
        self.stream: OnlineModel = adapt_online(
            self.model, method.name, domain=named, task=task, **method.options
        )
        self.rows: dict[str, Any] = {}  # it opens no domain
        self.num_images = 0

    def __call__(self, image: Tensor) -> StreamStep:
        """Predict images (N, 3, H, W), and adapt to them."""
        output = self.stream(image)
        self.num_images += len(image)
        weights = output.new_zeros(len(image), self.model.num_domains)
        weights[:, self.model.domain_names.index(self.stream.domain)] = 1
        unlike = torch.zeros(len(image), dtype=torch.bool)
        return StreamStep(output, weights, unlike, torch.ones(len(image)))

    def state_dict(self) -> dict[str, Any]:
        """See `OnlineModel.state_dict`."""
        return {"images": self.num_images, **self.stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stream of the same model and method stopped."""
        self.num_images = int(state.pop("images"))
        self.stream.load_state_dict(state)


def _only(stored: StoredModel) -> str:
    """The one domain that images can be of, where nobody says it."""
    names = list(stored.model.domain_names)
    targets = {name for one in stored.recipe.transfers for name in one.target} & set(names)
    found = names if len(names) == 1 else sorted(targets)
    if len(found) != 1:
        raise ConditionError(
            f"--domain: name the one whose images these are, of {', '.join(names)}"
        )
    return found[0]
