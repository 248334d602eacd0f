"""What a finished run does for others: predictions, streams that are followed, exported files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
