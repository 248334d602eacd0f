from .base import Method as Method
from .roles import Roles as Roles
from .roles import domains_of as domains_of
