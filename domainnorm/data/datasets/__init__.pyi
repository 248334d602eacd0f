from .folder import Folder as Folder
from .folder_masks import FolderMasks as FolderMasks
from .scans import Scans as Scans
