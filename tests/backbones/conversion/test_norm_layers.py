"""Layers whose rows are not images."""

import pytest
import torch
from torch import nn

from domainnorm.backbones import convert_norms
from domainnorm.errors import ConditionError, ConversionError
from tests.backbones.networks import DOMAINS, converted


def test_rows_of_folded_tokens_get_the_label_of_their_image():
    model = converted("levit_128s", dtype=torch.float64, size=224).eval()
    assert any(norm.folded for norm in model.norms())
    image = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    together = model(image, ["c", "a"])
    alone = torch.cat([model(image[:1], "c"), model(image[1:], "a")])
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("levit_128s", 224),
        ("efficientvit_m0", 224),
        ("mobilevit_xxs", 64),
        pytest.param("tiny_vit_5m_224", 224, marks=pytest.mark.slow),
        pytest.param("tnt_s_legacy_patch16_224", 224, marks=pytest.mark.slow),
    ],
)
def test_mixed_batch_through_folded_layers_is_each_image_alone(name, size):
    model = converted(name, None, dtype=torch.float64, size=size).eval()
    assert any(norm.folded for norm in model.norms())
    image = torch.randn(3, 3, size, size, dtype=torch.float64)
    alone = [model(image[n : n + 1], domain) for n, domain in enumerate("cab")]
    torch.testing.assert_close(model(image, ["c", "a", "b"]), torch.cat(alone))


class Interleaved(nn.Module):
    """Folds tokens so that rows of one image are not consecutive."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        tokens = x.flatten(2).permute(2, 0, 1)  # (L, N, C)
        return self.norm(tokens.reshape(-1, 3)).reshape_as(tokens)


def test_rows_that_are_not_consecutive_are_refused_with_the_path():
    message = r"^norm \(BatchNorm1d\): sees 32 rows for 2 images, and not those of one after"
    with pytest.raises(ConversionError, match=message):
        convert_norms(Interleaved(), "dsbn", DOMAINS, example=torch.rand(1, 3, 4, 4))


def test_rows_that_are_not_images_raise_with_the_path_when_there_was_no_example():
    model = convert_norms(Interleaved(), "dsbn", DOMAINS)
    with pytest.raises(ConditionError, match=r"^norm: 32 rows for 2 domain labels"):
        model(torch.rand(2, 3, 4, 4), ["a", "b"])


class SequenceFirst(nn.Module):
    """As many positions as images in the batch: the number of rows alone does not tell."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(3)

    def forward(self, x):
        return self.norm(x.flatten(2).permute(2, 0, 1))  # (L, N, C)


class Positions(nn.Module):
    """Normalizes a parameter that all images share."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 16, 3))
        self.norm = nn.LayerNorm(3)

    def forward(self, x):
        return x.flatten(2).mT + self.norm(self.positions)


@pytest.mark.parametrize(("network", "rows"), [(SequenceFirst(), 16), (Positions(), 1)])
def test_layer_without_a_row_per_image_is_refused_with_what_to_do(network, rows):
    message = rf"^norm \(LayerNorm\): sees {rows} rows for 2 images.*where=\['all', '!norm'\]"
    with pytest.raises(ConversionError, match=message):
        convert_norms(network, None, DOMAINS, example=torch.rand(1, 3, 4, 4))
