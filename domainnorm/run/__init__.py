"""A recipe carried out: stages, their results and what they leave on disk."""

from importlib import import_module
from typing import Any

import lazy_loader

_own, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
# What a finished run does for others is found here as well, where it was first.
_serve = import_module("domainnorm.serve")
__all__.extend(_serve.__all__)


def __getattr__(name: str) -> Any:
    return getattr(_serve, name) if name in _serve.__all__ else _own(name)


def __dir__() -> list[str]:
    return __all__
