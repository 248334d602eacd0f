from .runs import Runs as Runs
from .watch import DomainBelief as DomainBelief
from .watch import DomainWatch as DomainWatch
from .watch import NoveltyAlarm as NoveltyAlarm
from .watch import Opening as Opening
from .watch import Sighting as Sighting
