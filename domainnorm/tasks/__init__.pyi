from .base import Task as Task
from .classification import Classification as Classification
from .decoders import create_segmentation_model as create_segmentation_model
from .decoders import size_multiple as size_multiple
from .domain_matrix import compare_domains as compare_domains
from .multilabel import MultiLabel as MultiLabel
from .segmentation import Segmentation as Segmentation
