from .adapter import DomainBelief as DomainBelief
from .adapter import NoveltyAlarm as NoveltyAlarm
from .adapter import StreamAdapter as StreamAdapter
from .adapter import StreamStep as StreamStep
from .stream_row import StreamRow as StreamRow
from .stream_row import reliable_entropy as reliable_entropy
