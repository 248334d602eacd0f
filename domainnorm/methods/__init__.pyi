from .base import Method as Method
from .base import Roles as Roles
from .base import domains_of as domains_of
