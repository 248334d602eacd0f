"""What a conversion says that it did."""

import copy
import pickle

from torch import nn

from domainnorm.backbones import Conversion, convert_norms
from tests.backbones.networks import DOMAINS, converted


def test_bytes_per_domain_count_what_a_domain_adds():
    one, two = (converted(domains=names) for names in (("a", "b"), ("a", "b", "c")))

    def size(model):
        tensors = [t for n, t in model.state_dict().items() if "num_batches" not in n]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    assert two.bytes_per_domain == size(two) - size(one)


TABLE = """\
layer  was          norm  exact  bytes/domain  note
-----  -----------  ----  -----  ------------  ----
0      BatchNorm2d  cin   no               32
1      LayerNorm    cln   yes              32
2      BatchNorm2d  dsbn  yes              64
-----  -----------  ----  -----  ------------  ----
total  3 layers           2               128"""


def test_conversion_prints_as_a_table_with_totals():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.LayerNorm(4), nn.BatchNorm2d(4))
    model = convert_norms(network, {"all": None, "0": "cin"}, DOMAINS)
    assert str(model.conversion) == TABLE


def test_table_says_why_a_layer_has_another_norm_than_asked_for():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.LayerNorm(4))
    lines = str(convert_norms(network, "cbn", DOMAINS).conversion).splitlines()
    assert lines[3].endswith("cbn is for other layers, this one keeps its function")


def test_network_that_is_one_norm_has_a_line_without_path():
    conversion = convert_norms(nn.BatchNorm2d(4), None, DOMAINS).conversion
    assert str(conversion).splitlines()[2].startswith("(the network)  BatchNorm2d")


def test_conversion_survives_copies_and_pickles():
    conversion = converted().conversion
    for other in (copy.deepcopy(conversion), pickle.loads(pickle.dumps(conversion))):
        assert isinstance(other, Conversion)
        assert other == conversion
