from .base import RunLogger as RunLogger
from .base import check_loggers as check_loggers
from .base import create_loggers as create_loggers
from .base import recording as recording
