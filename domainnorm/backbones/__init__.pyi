from .convert import convert_norms as convert_norms
from .create import create_model as create_model
from .create import data_config as data_config
from .model import ConvertedLayer as ConvertedLayer
from .model import DomainModel as DomainModel
from .rows import domain_parameters as domain_parameters
from .rows import set_rows as set_rows
