from .base import Method as Method
from .online import OnlineModel as OnlineModel
from .online import adapt_online as adapt_online
from .roles import Roles as Roles
from .roles import domains_of as domains_of
