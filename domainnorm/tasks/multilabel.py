"""Several findings per image, each present, absent or unknown."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import Metric

from domainnorm.evaluation import Evaluated, MultiLabelStore
from domainnorm.losses import masked_bce_loss
from domainnorm.registry import register
from domainnorm.tasks.classification import Classification


