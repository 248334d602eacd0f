from .folder import Folder as Folder
from .scans import Scans as Scans
