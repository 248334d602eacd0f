from .labelled import dice_loss as dice_loss
from .labelled import focal_loss as focal_loss
from .labelled import masked_bce_loss as masked_bce_loss
from .unlabelled import adversarial_loss as adversarial_loss
from .unlabelled import domain_rows_loss as domain_rows_loss
from .unlabelled import entropies as entropies
from .unlabelled import entropy_loss as entropy_loss
from .unlabelled import reversed_gradient as reversed_gradient
