from .dice import dice_loss as dice_loss
from .domain_rows import domain_rows_loss as domain_rows_loss
from .entropy import entropy_loss as entropy_loss
from .focal import focal_loss as focal_loss
from .masked_bce import masked_bce_loss as masked_bce_loss
