import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.norms import create_norm

DOMAIN = torch.tensor([1, 0, 1])


def moments(rows, channels=4):
    return torch.randn(rows, channels), torch.rand(rows, channels) + 0.5


def run(norm, x, thumbnail=None):
    with norm.slot.holding(Condition(domain=DOMAIN, thumbnail=thumbnail)):
        return norm(x)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 4, 1, 1), (3, 4)])
def test_tiles_get_the_moments_of_the_thumbnail(rows, shape):
    norm = create_norm("tin", 4, 2, path="layer1.norm")
    torch.nn.init.normal_(norm.modulation.scale)
    x, (mean, var) = torch.randn(shape), moments(rows)
    output = run(norm, x, {"layer1.norm": (mean, var)})
    for n in range(3):
        for c in range(4):
            row = min(n, rows - 1)
            normed = (x[n, c] - mean[row, c]) / torch.sqrt(var[row, c] + 1e-5)
            wanted = norm.modulation.scale[DOMAIN[n], c] * normed
            torch.testing.assert_close(output[n, c], wanted)


def test_without_a_thumbnail_it_is_instance_normalization():
    norm, other = create_norm("tin", 4, 2), create_norm("cin", 4, 2)
    x = torch.randn(3, 4, 5, 6)
    assert torch.equal(run(norm, x), run(other, x))


def test_its_own_recorded_moments_change_nothing():
    norm, x = create_norm("tin", 4, 2), torch.randn(3, 4, 5, 6)
    with norm.slot.recording() as recorded:
        alone = run(norm, x)
    torch.testing.assert_close(run(norm, x, recorded), alone)


def test_thumbnail_of_another_model_is_refused_with_the_path():
    norm = create_norm("tin", 4, 2, path="layer1.norm")
    message = "layer1.norm: thumbnail: no moments of this layer among 1 recorded ones"
    with pytest.raises(ConditionError, match=message):
        run(norm, torch.randn(3, 4, 2, 2), {"elsewhere": moments(1)})


@pytest.mark.parametrize(("rows", "channels"), [(2, 4), (1, 5)])
def test_thumbnail_of_another_shape_is_refused(rows, channels):
    norm = create_norm("tin", 4, 2, path="a")
    message = rf"a: thumbnail: moments of shape \({rows}, {channels}\) for an input \(3, 4, 2, 2\)"
    with pytest.raises(ConditionError, match=message):
        run(norm, torch.randn(3, 4, 2, 2), {"a": moments(rows, channels)})
