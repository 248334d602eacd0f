from .catalogue import CATALOGUE as CATALOGUE
from .catalogue import NormSpec as NormSpec
from .catalogue import create_norm as create_norm
from .catalogue import list_norms as list_norms
from .kernels.pooled import pooled_norm as pooled_norm
from .layer import ConditionalNorm as ConditionalNorm
