from .domain_rows import domain_rows_loss as domain_rows_loss
from .entropy import entropy_loss as entropy_loss
