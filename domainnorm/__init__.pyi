from .backbones import DomainModel as DomainModel
from .backbones import convert_norms as convert_norms
from .backbones import create_model as create_model

__version__: str
