from . import backbones as backbones
from . import data as data
from . import encoders as encoders
from . import evaluation as evaluation
from . import losses as losses
from . import methods as methods
from . import norms as norms
from . import perturbations as perturbations
from . import recipe as recipe
from . import report as report
from . import run as run
from . import serve as serve
from . import streams as streams
from . import tasks as tasks
from .backbones import DomainModel as DomainModel
from .backbones import add_domain as add_domain
from .backbones import calibrate as calibrate
from .backbones import convert_norms as convert_norms
from .backbones import create_model as create_model
from .backbones import fold_domain as fold_domain
from .backbones import interpolate_domains as interpolate_domains
from .backbones import load_domain as load_domain
from .backbones import remove_domain as remove_domain
from .backbones import save_domain as save_domain
from .methods import adapt_online as adapt_online
from .tasks import create_segmentation_model as create_segmentation_model

__version__: str
