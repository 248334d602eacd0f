"""Methods that adapt while they predict, for a program of one's own: no trainer, no recipe."""

from __future__ import annotations

import copy
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConditionError, DomainNormError, unknown
from domainnorm.methods.heads import num_classes
from domainnorm.methods.online_method import OnlineMethod
from domainnorm.methods.roles import Roles
from domainnorm.ranges import problem_of
from domainnorm.registry import METHODS
from domainnorm.tasks import Task
from domainnorm.tasks.classification import Classification


class OnlineModel:
    """A model that predicts images in the order in which they come, and adapts to them.

    Args:
        method: Of protocol ``online``; its model is changed in place.
        domain: Whose rows the images have.
    """

    def __init__(self, method: OnlineMethod, domain: str) -> None:
        self.method, self.domain = method, domain
        self._label = method.model.domain_names.index(domain)
        method.begin_stream((domain,))

    def reset(self) -> None:
        """Go back to the model as it was given, and forget what was seen."""
        self.method.restart()

    def state_dict(self) -> dict[str, Any]:
        """A copy of what has moved and of what the method remembers: tensors and numbers."""
        now, before = self.method.state_dict(), self.method.source_state
        moved = {name: value for name, value in now.items() if not value.equal(before[name])}
        optimizer = self.method.stream_optimizer
        state = {
            "moved": moved,
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "remembered": {name: attrgetter(name)(self.method) for name in self.method.memories},
            "random": torch.get_rng_state(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stream of the same model and method stopped."""
        state = copy.deepcopy(state)
        self.reset()
        self.method.load_state_dict({**self.method.source_state, **state["moved"]})
        if self.method.stream_optimizer is not None:
            self.method.stream_optimizer.load_state_dict(state["optimizer"])
        device = next(self.method.model.parameters()).device
        for name in self.method.memories:
            value = self.method.transfer_batch_to_device(state["remembered"][name], device, 0)
            owner, _, last = f"method.{name}".rpartition(".")
            setattr(attrgetter(owner)(self), last, value)
        torch.set_rng_state(state["random"])

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K, ...) of the next images (N, 3, H, W) of the stream."""
        device = next(self.method.model.parameters()).device
        domain = torch.full((len(images),), self._label, device=device)
        return self.method.follow_stream({"image": images.to(device), "domain": domain})


def online_methods() -> list[str]:
    """Names of the methods that predict while they adapt."""
    constants = {name: METHODS.entry(name).constants for name in METHODS.names()}
    return [name for name, found in constants.items() if found.get("protocol") == "online"]


def adapt_online(
    model: DomainModel,
    method: str,
    *,
    domain: str | None = None,
    task: Task | None = None,
    **options: Any,
) -> OnlineModel:
    """Let a model adapt to the images that it predicts.

    ``stream = adapt_online(model, "neo"); logits = stream(images)``

    Args:
        model: Of as many classes as ``task`` has; changed in place.
        method: Name of a method of protocol ``online``, such as ``neo`` or ``eata``.
        domain: Name of the domain whose rows the images have, and that of what moves; None where
            the model has one.
        task: Of the images; one class each when None.
        **options: Of the method; ``fisher_weight=0`` for ``eata``, which asks a run for images of
            the source otherwise.

    Raises:
        ConditionError: No domain of several is named, or one that the model does not have.
        DomainNormError: No such method or option, one that does not predict while it adapts, a
            value that an option cannot have, or see the method.
    """
    if method not in online_methods():
        what = "method that predicts while it adapts"
        raise DomainNormError(unknown(what, method, online_methods()))
    names = list(model.domain_names)
    if domain is None and len(names) > 1:
        raise ConditionError(f"domain: name one of {', '.join(names)}, whose rows the images have")
    domain = names[0] if domain is None else domain
    if domain not in names:
        raise ConditionError(f"domain: {unknown('domain', domain, names)}")
    task = task or Classification([str(number) for number in range(num_classes(model))])
    roles = Roles(tuple(name for name in names if name != domain), (domain,))
    parameters = METHODS.entry(method).parameters
    for option in options.keys() & parameters.keys():
        if problem := problem_of(parameters[option], options[option]):
            raise DomainNormError(f"{method}: {option}: {problem}")
    return OnlineModel(METHODS.create(method, model, task, roles, **options), domain)
