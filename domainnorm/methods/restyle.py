"""Supervised training on source images in the style of the target."""

from __future__ import annotations

from domainnorm.backbones import set_rows
from domainnorm.methods.base import Batch
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register


@register
class Restyle(SupervisedMethod):
    """Supervised training on source images that take the style of unlabelled target images.

    The recipe must have an augmentation step that takes the style of another domain: ``FDA``,
    ``HistogramMatching`` or ``Translate`` under ``augment.source``. Half of each batch are target
    images. They have no loss, but pass through the norms under the source's scale and shift, so
    that the norms also learn the target's moments.

    Reference:
        Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020,
        arXiv:2004.05498, eq. 4 without its entropy term.
    """

    labelled: str = "source"
    unlabelled: str = "target"
    starts_from: str = "backbone"
    style_steps: tuple[str, ...] = ("FDA", "HistogramMatching", "Translate")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Give the target's rows the scale and shift of the source."""
        self._lend()

    def on_fit_end(self) -> None:
        """Those of the last step; the target keeps its own moments, clean ones if wanted."""
        self._lend()
        super().on_fit_end()

    def _lend(self) -> None:
        for model in self.networks:
            for name in self.roles.target:
                set_rows(model, name, self.roles.lent(self.roles.source), moments=False)
