from .domainnet import DomainNet as DomainNet
from .folder import Folder as Folder
from .folder_masks import FolderMasks as FolderMasks
from .office_home import OfficeHome as OfficeHome
from .pacs import PACS as PACS
from .scans import Scans as Scans
from .visda import VisDA as VisDA
