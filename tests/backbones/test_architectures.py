import timm

from domainnorm.backbones.architectures import USUAL, architectures


def test_names_read_from_sources_are_those_that_timm_lists():
    assert architectures() == set(timm.list_models())
    assert architectures().issuperset(USUAL)
