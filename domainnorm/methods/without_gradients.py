"""Streams that a model is adapted to without a step of an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.methods.heads import head_of, heads_of
from domainnorm.methods.online_method import OnlineMethod
from domainnorm.methods.roles import Roles
from domainnorm.tasks import Task


class WithoutGradients(OnlineMethod):
    """Predicts a stream of the target by the source model and by what the stream has shown so far.

    Nothing is trained, and no source image is seen.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        **options: See `OnlineMethod`.
    """

    def __init__(self, model: DomainModel, task: Task, roles: Roles, **options: Any) -> None:
        super().__init__(model, task, roles, **options)
        self.train_only(())

    def configure_optimizers(self) -> Any:
        """Nothing is optimized."""
        return None

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Evaluation mode; what an earlier stream has shown is forgotten."""
        self.eval()


@contextmanager
def features_changed(model: DomainModel, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Inside the block what reaches the heads of a network is changed.

    Args:
        model: The network.
        change: Of the position of a head, of which distilled networks have two, and its features
            (N, F) or (N, F, 1, 1), makes features.

    Raises:
        ConversionError: There is no head.
    """
    head_of(model)  # says what is wrong where there is none
    with ExitStack() as stack:
        for position, head in enumerate(heads_of(model)):

            def hook(_: nn.Module, inputs: tuple[Any, ...], at: int = position) -> tuple[Any, ...]:
                return change(at, inputs[0]), *inputs[1:]

            stack.callback(head.register_forward_pre_hook(hook).remove)
        yield
