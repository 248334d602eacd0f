from .catalogue import CATALOGUE as CATALOGUE
from .catalogue import NormSpec as NormSpec
from .create import create_norm as create_norm
from .create import list_norms as list_norms
from .layer import ConditionalNorm as ConditionalNorm
from .pooled import pooled_norm as pooled_norm
