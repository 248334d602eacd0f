import subprocess
import sys

import pytest

import domainnorm


@pytest.mark.parametrize("heavy", ["torch", "lightning", "timm", "omegaconf"])
def test_importing_the_package_loads_nothing_heavy(heavy):
    code = f"import sys, domainnorm; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", domainnorm.__all__)
def test_every_public_name_loads_on_first_use(name):
    assert getattr(domainnorm, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        domainnorm.no_such_name  # noqa: B018


def test_registry_of_perturbations_is_public_as_before():
    from domainnorm.perturbations import PERTURBATIONS, list_perturbations  # noqa: PLC0415

    assert PERTURBATIONS.names() == list_perturbations()
