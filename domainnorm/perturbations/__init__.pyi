from .base import PERTURBATIONS as PERTURBATIONS
from .base import Perturbation as Perturbation
from .base import create_perturbation as create_perturbation
from .base import list_perturbations as list_perturbations
