import pytest
import torch
from torch.testing import assert_close

from domainnorm import create_segmentation_model
from domainnorm.backbones import create_model, drop_tokens
from domainnorm.errors import ConversionError


def network(**options):
    torch.manual_seed(0)
    options = {"decoder": "pyramid", "width": 16, "img_size": 64, **options}
    return create_segmentation_model("test_vit", 3, "cln", ["a"], **options).eval()


def embedded(model, image, ratio):
    """Patch tokens (N, h, w, E) as the blocks get them, before positions are added."""
    seen = []
    with drop_tokens(model, ratio):
        hook = model.backbone.encoder.model.patch_embed.register_forward_hook(
            lambda _, __, tokens: seen.append(tokens)
        )
        model(image)
        hook.remove()
    return seen[0]


@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_hidden_tokens_are_zero_and_others_as_they_were(ratio):
    model, image = network(), torch.randn(8, 3, 160, 160)
    with torch.no_grad():
        kept, tokens = embedded(model, image, 0.0), embedded(model, image, ratio)
    hidden = (tokens == 0).all(-1)
    assert_close(tokens[~hidden], kept[~hidden], rtol=0, atol=0)
    assert abs(float(hidden.float().mean()) - ratio) < 0.06  # 800 tokens, four standard errors
    assert not torch.equal(hidden[0], hidden[1])


def test_nothing_is_hidden_after_the_block():
    model, image = network(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(image)
        with drop_tokens(model, 0.7):
            assert not torch.allclose(model(image), before)
        assert torch.equal(model(image), before)


def test_gradients_pass_what_is_not_hidden():
    model = network().train()
    with drop_tokens(model, 0.5):
        model(torch.randn(1, 3, 64, 64)).sum().backward()
    assert float(model.backbone.encoder.model.patch_embed.proj.weight.grad.abs().sum()) > 0


def test_networks_without_patches_and_ratios_out_of_range_are_refused():
    with (
        pytest.raises(ConversionError, match="ResNet has no patch tokens"),
        drop_tokens(create_model("test_resnet", 3), 0.5),
    ):
        pass
    with pytest.raises(ConversionError, match=r"ratio 1\.0, expected"), drop_tokens(network(), 1.0):
        pass
