"""Hidden patches of vision transformers, for methods that learn from a part of an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConversionError


@contextmanager
def drop_tokens(model: DomainModel, ratio: float) -> Iterator[None]:
    """Hide patches of the images that ``model`` sees inside the block.

    Each patch of each image is hidden with probability ``ratio``: its token becomes 0 before
    position embeddings are added, so that the network knows where something is hidden and has to
    say what, as masks need. Parts of images that are set to 0 instead (`mean_teacher`'s kin) are
    seen by any network. In training and in evaluation; not within a program that was compiled
    before.

    Args:
        model: Around a network that embeds patches.
        ratio: In [0, 1).

    Raises:
        ConversionError: A network that embeds no patches, or a ratio out of range.

    Reference:
        Hoyer et al., MIC, CVPR 2023, arXiv:2212.01322, sec. 3.2; Englert et al., Exploring the
        Benefits of Vision Foundation Models for UDA, CVPR workshops 2024, arXiv:2406.09896.
        Differs: MIC hides blocks of pixels; a learned mask token, which timm's networks do not
        keep, is 0 here.
    """
    if not 0 <= ratio < 1:
        raise ConversionError(f"drop_tokens: ratio {ratio}, expected a share in [0, 1)")
    embed = next((m.patch_embed for m in model.modules() if hasattr(m, "patch_embed")), None)
    if embed is None:
        raise ConversionError(
            f"drop_tokens: {type(model.backbone).__name__} has no patch tokens; take a vision "
            "transformer, or mask pixels (method.mask_by: pixels)"
        )

    def hide(_: Any, __: Any, tokens: Tensor) -> Tensor:  # (N, L, E) or (N, h, w, E)
        kept = torch.rand(tokens.shape[:-1], device=tokens.device) >= ratio
        return torch.where(kept[..., None], tokens, 0.0)

    hook: Any = embed
    handle = hook.register_forward_hook(hide)
    try:
        yield
    finally:
        handle.remove()
