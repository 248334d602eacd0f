from .entropy import entropy_loss as entropy_loss
