"""Methods that adapt while they predict, for a program of one's own: no trainer, no recipe."""

from __future__ import annotations

import copy
import itertools
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel, add_domain, remove_domain
from domainnorm.errors import ConditionError, DataError, DomainNormError, unknown
from domainnorm.methods.heads import num_classes
from domainnorm.methods.online_method import OnlineMethod, in_the_way
from domainnorm.methods.roles import Roles
from domainnorm.ranges import problem_of
from domainnorm.registry import METHODS
from domainnorm.streams import Sighting
from domainnorm.tasks import Task
from domainnorm.tasks.classification import Classification


class OnlineModel:
    """A model that predicts images in the order in which they come, and adapts to them.

    Args:
        method: Of protocol ``online``; its model is changed in place.

    Attributes:
        domain: Whose rows all images have, where no rows are opened.
    """

    def __init__(self, method: OnlineMethod) -> None:
        self.method, self.domain = method, method.roles.target[0]
        self._label = method.model.domain_names.index(self.domain)
        method.begin_stream(method.roles.target)

    @property
    def seen(self) -> Sighting | None:
        """What was told of the domains of the last batch; None where nobody asks for it."""
        return self.method.sighting

    @property
    def opened(self) -> list[str]:
        """Names of the domains that were opened, in this order."""
        return [] if self.method.watch is None else self.method.watch.opened

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
            "begun": self.method.begun,
            "random": torch.get_rng_state(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stream of the same model and method stopped."""
        state = copy.deepcopy(state)
        self.reset()
        for row, values in state["begun"].items():
            self.method.begin_row(row, values)
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
        """Logits (N, K, ...) of the next images (N, 3, H, W) of the stream.

        Raises:
            DataError: Images of another shape or type, or with values that are not finite: nothing
                has moved then.
        """
        _check_images(images)
        device = next(self.method.model.parameters()).device
        domain = torch.full((len(images),), self._label, device=device)
        return self.method.follow_stream({"image": images.to(device), "domain": domain})


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        got = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise DataError(
            f"images: got {got}, expected floating point numbers (N, C, H, W) of at least one image"
        )
    broken = (~images.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    if broken:
        which = ", ".join(map(str, broken[:8])) + (", …" if len(broken) > 8 else "")
        raise DataError(
            f"images: {which} of the batch (from 0) have values that are not finite, which would "
            "stay in what the stream remembers; leave them out"
        )


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
    max_domains: int = 8,
    **options: Any,
) -> OnlineModel:
    """Let a model adapt to the images that it predicts.

    ``stream = adapt_online(model, "neo"); logits = stream(images)``. If the domains of images are
    unknown, or new, use ``adapt_online(model, "online", rows="opened")``. The model then needs a
    fitted encoder, and gets ``max_domains`` further rows.

    Args:
        model: With the classes of ``task``; changed in place.
        method: Name of a method of protocol ``online``, such as ``neo`` or ``eata``.
        domain: Name of the domain of the images, whose rows adapt; None if the model has only one,
            or for ``rows="opened"``.
        task: Task of the images; None for classification.
        max_domains: Most domains that may be opened.
        **options: Options of the method. ``eata`` needs ``fisher_weight=0`` here, since only a run
            has source images.

    Raises:
        ConditionError: No domain of several is named, or one that the model does not have; or see
            `problem_of_opened`.
        DomainNormError: No `DomainModel`, no such method or option, one that does not predict while
            it adapts, a value that an option cannot have, or see the method.
    """
    if not isinstance(model, DomainModel):
        raise DomainNormError(
            f"adapt_online: got a {type(model).__name__}, expected a DomainModel; make one with "
            "convert_norms(network, domains=[...])"
        )
    if method not in online_methods():
        what = "method that predicts while it adapts"
        raise DomainNormError(unknown(what, method, online_methods()))
    task = task or Classification([str(number) for number in range(num_classes(model))])
    parameters = METHODS.entry(method).parameters
    for option in options.keys() & parameters.keys():
        if problem := problem_of(parameters[option], options[option]):
            raise DomainNormError(f"{method}: {option}: {problem}")
    opens = options.get("rows") == "opened"
    if opens and domain is not None:
        raise ConditionError(f"domain: got {domain}, but 'rows: opened' estimates it; leave it out")
    if opens and (problem := in_the_way(model, options.get("reset"))):
        raise ConditionError(f"{method}: rows: {problem}")
    roles = _spare(model, max_domains) if opens else _of_one(model, domain)
    try:
        return OnlineModel(METHODS.create(method, model, task, roles, **options))
    except BaseException:
        for name in roles.target if opens else ():
            remove_domain(model, name)
        raise


def _of_one(model: DomainModel, domain: str | None) -> Roles:
    """Roles of a stream of one domain."""
    names = list(model.domain_names)
    if domain is None and len(names) > 1:
        raise ConditionError(f"domain: missing; name the domain of the images: {', '.join(names)}")
    domain = names[0] if domain is None else domain
    if domain not in names:
        raise ConditionError(f"domain: {unknown('domain', domain, names)}")
    return Roles(tuple(name for name in names if name != domain), (domain,))


def _spare(model: DomainModel, number: int) -> Roles:
    """Roles of a stream of all domains, and of new ones, for which there are rows now."""
    known = tuple(model.domain_names)
    if number < 1:
        raise DomainNormError(f"max_domains: got {number}, expected 1 or more")
    free = (f"found_{k}" for k in itertools.count(1) if f"found_{k}" not in known)
    spare = tuple(itertools.islice(free, number))
    for name in spare:
        add_domain(model, name)
    return Roles(known, spare)
