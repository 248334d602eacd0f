from .adapter import StreamAdapter as StreamAdapter
from .adapter import StreamStep as StreamStep
from .alarm import NoveltyAlarm as NoveltyAlarm
from .belief import DomainBelief as DomainBelief
from .rows import StreamRow as StreamRow
from .rows import reliable_entropy as reliable_entropy
