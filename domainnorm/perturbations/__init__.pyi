from .base import Perturbation as Perturbation
from .create import PERTURBATIONS as PERTURBATIONS
from .create import create_perturbation as create_perturbation
from .create import list_perturbations as list_perturbations
