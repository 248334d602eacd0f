import torch
import torch.nn.functional as F
from torch.testing import assert_close

from domainnorm.tasks import MultiLabel

TARGET = torch.tensor([[1, 0, -1], [0, 1, 1]])


def test_unknown_findings_do_not_count():
    logits = torch.randn(2, 3)
    known = TARGET >= 0
    expected = F.binary_cross_entropy_with_logits(logits[known], TARGET[known].float())
    assert_close(MultiLabel(list("abc")).loss(logits, TARGET), expected)


def test_store_gives_back_what_it_was_given():
    task = MultiLabel(list("abc"))
    store = task.store()
    logits = torch.tensor([[3.0, -3, 0], [-3, 3, 3], [0, -3, -3]])
    store.update(logits, torch.tensor([[1, 0, -1], [0, 1, 1], [0, 0, 0]]), torch.arange(3))
    values = store.compute().metrics(**task.metric_options())
    assert values[task.metric] == 1
    assert values["auroc/b"] == 1
