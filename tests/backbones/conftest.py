import pytest

from domainnorm.backbones import save_domain
from tests.backbones.networks import make


@pytest.fixture
def shipped(tmp_path):
    """A model, a copy that lacks its domain b, and the pack of b."""
    model = make()
    save_domain(model, "b", tmp_path / "b.safetensors")
    other = make(domains=("a", "c"))
    shared = {key: tensor for key, tensor in model.state_dict().items() if not _is_row(key)}
    other.load_state_dict(shared, strict=False)
    return model, other, tmp_path / "b.safetensors"


def _is_row(key):
    return ".modulation." in key or ".statistics." in key
