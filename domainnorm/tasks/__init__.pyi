from .base import Task as Task
from .classification import Classification as Classification
