from .base import DomainEncoder as DomainEncoder
from .base import Estimate as Estimate
from .create import create_encoder as create_encoder
from .create import list_encoders as list_encoders
from .fit import extend_encoder as extend_encoder
from .fit import fit_encoder as fit_encoder
from .gaussians import DomainGaussians as DomainGaussians
from .styles import style_features as style_features
