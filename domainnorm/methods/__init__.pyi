from .adapt_online import OnlineModel as OnlineModel
from .adapt_online import adapt_online as adapt_online
from .adapt_online import online_methods as online_methods
from .base import Method as Method
from .roles import Roles as Roles
from .roles import domains_of as domains_of
