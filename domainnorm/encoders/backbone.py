"""Backbone encoder: the domain from the first features of the model's own network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.encoders.base import DomainEncoder
from domainnorm.encoders.style import map_moments
from domainnorm.errors import ConditionError
from domainnorm.registry import register
from domainnorm.slot import ConditionSlot


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    def __init__(self, maps: Tensor) -> None:
        super().__init__("the first conditional norm has been reached")
        self.maps = maps


@register
class BackboneEncoder(DomainEncoder):
    """Moments of the features at the model's first conditional norm, in the same forward pass.

    It reads mean and log standard deviation of each channel. The pass continues with the estimated
    domain, so nothing is computed twice. If all norms are converted, the features are the output of
    the first convolution (colour and edges); if only later norms are conditional, they are those of
    a later stage. No gradient flows through the estimate.

    Args:
        num_domains: D.
        network: The backbone with conditional norms; it is shared, not copied.
        in_chans: Not used.
        **options: See `DomainEncoder`.

    Raises:
        ConditionError: No network, or one without conditional norms.

    Reference:
        Segu et al., Batch Normalization Embeddings for Deep Domain Generalization, 2020,
        arXiv:2011.12672, sec. 3.2 (domains by the moments that norms see).
        Differs: of one layer, through an MLP, instead of Wasserstein distances over all.
    """

    reads_backbone: bool = True

    def __init__(
        self, num_domains: int, network: nn.Module | None = None, in_chans: int = 3, **options: Any
    ) -> None:
        norm = _first_norm(network)
        super().__init__(num_domains, 2 * norm.num_features, **options)
        # In a tuple: a child would put the backbone's weights into the state a second time.
        self._network: tuple[Any, ConditionSlot] = (network, norm.slot)

    def features(self, image: Tensor) -> Tensor:
        """The moments (N, F) at the first conditional norm; the pass stops there.

        Raises:
            ConditionError: The network is in training mode, where its features are others, or the
                image reaches no conditional norm, or the call is being compiled.
        """
        network, slot = self._network
        if torch.compiler.is_compiling():
            raise ConditionError(
                "encoder 'backbone': model.estimate stops the forward pass half-way and cannot be "
                "compiled; call model(image), which estimates within its pass"
            )
        if network.training:
            raise ConditionError(
                "encoder 'backbone': the network is training; call model.eval() first"
            )
        weight = next(network.parameters())
        try:
            with slot.holding(Condition(settle=_stop)):
                network(image.to(weight.dtype))
        except _Reached as reached:
            return self.reached(reached.maps, len(image))
        raise ConditionError("encoder 'backbone': the image reaches no conditional norm")

    def reached(self, maps: Tensor, number: int) -> Tensor:
        """Moments (N, F) of the N images of a batch.

        Args:
            maps: What the first norm gets, (R, C, *), each image as R / N consecutive rows.
            number: N.
        """
        channels = maps.shape[1]
        if 2 * channels != len(self.location):
            raise ConditionError(
                f"encoder 'backbone': expected {len(self.location) // 2} channels at the first "
                f"conditional norm, got {channels}; use encoder 'style'"
            )
        rows = maps.float().reshape(number, -1, channels, max(1, maps.shape[2:].numel()))
        return map_moments(rows.movedim(2, 1))


def _stop(maps: Tensor) -> Condition:
    raise _Reached(maps)


def _first_norm(network: nn.Module | None) -> Any:
    for module in network.modules() if network is not None else ():
        # Norms are of the same level as encoders, and known here by what they read.
        if isinstance(getattr(module, "slot", None), ConditionSlot) and getattr(
            module, "num_features", None
        ):
            return module
    raise ConditionError(
        "encoder 'backbone' reads the first conditional norm of a network, but there is none; pass "
        "the backbone of a DomainModel to create_encoder, or use 'style'"
    )
