"""A recipe carried out: stages, their results and what they leave on disk."""

from importlib import import_module
from typing import Any

import lazy_loader

_own, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
# Of `domainnorm.serve`; they are found here as well, where they were first.
_SERVED = [
    "Adapted",
    "Exported",
    "PredictOptions",
    "Predicted",
    "StoredModel",
    "StreamOptions",
    "adapt_run",
    "export_run",
    "load_stored",
    "predict_run",
]
__all__.extend(_SERVED)


def __getattr__(name: str) -> Any:
    return getattr(import_module("domainnorm.serve"), name) if name in _SERVED else _own(name)


def __dir__() -> list[str]:
    return __all__
