import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch.testing import assert_close

from domainnorm import create_segmentation_model
from domainnorm.backbones import layer_scales
from domainnorm.errors import ConversionError, DataError
from domainnorm.tasks import Segmentation, size_multiple
from domainnorm.tasks.decoders import PLAIN
from domainnorm.tasks.pyramid import Pyramid, PyramidDecoder
from tests.reference.decoders import pyramid

DOMAINS = ["day", "dusk"]
SMALL = {"embed_dim": 32, "num_heads": 2}
ENCODERS = {
    "test_vit": {},  # a class token
    "test_vit3": {},  # a register, and a head that pools by attention
    "vit_tiny_patch16_dinov3_qkvb": SMALL,  # registers, and rotary positions
    "vit_base_patch16_siglip_224": SMALL,  # neither class token nor registers
}


def network(name="test_vit", norm="cln", decoder="pyramid", **options):
    torch.manual_seed(0)
    given = {"width": 16, **options}
    return create_segmentation_model(name, 3, norm, DOMAINS, decoder=decoder, **given).eval()


@pytest.mark.parametrize("grid", [(2, 2), (3, 5)])
def test_equals_the_formulas(grid):
    torch.manual_seed(0)
    decoder = PyramidDecoder([8, 8, 8, 8], 6).double()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    maps = [torch.randn(1, 8, *grid, dtype=torch.float64) for _ in range(4)]
    weights = {name: tensor.numpy() for name, tensor in decoder.state_dict().items()}
    with torch.no_grad():
        found = decoder(maps)[0]
    assert_close(found, torch.from_numpy(pyramid(weights, [one[0].numpy() for one in maps])))


@pytest.mark.parametrize("name", ENCODERS)
def test_images_of_any_number_of_patches_are_taken(name):
    model = network(name, **ENCODERS[name])
    for height, width in ((48, 80), (64, 64)):
        with torch.no_grad():
            logits = model(torch.randn(2, 3, height, width), DOMAINS)
        assert logits.shape == (2, 3, height, width)


def test_patches_of_14_pixels_are_taken():
    model = network(patch_size=14, img_size=56)
    assert size_multiple(model.backbone) == 14
    with torch.no_grad():
        assert model(torch.randn(1, 3, 42, 70), "day").shape == (1, 3, 42, 70)


@pytest.mark.parametrize("decoder", PLAIN)
def test_position_embeddings_are_resampled(decoder):
    model, other = network(decoder=decoder, img_size=64), network(decoder=decoder, img_size=96)
    state = model.state_dict()
    place = "backbone.encoder.model.pos_embed"
    state[place] = resample_abs_pos_embed(state[place], new_size=[6, 6], num_prefix_tokens=1)
    other.load_state_dict(state)
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert_close(model(image, "day"), other(image, "day"))


def test_conversion_preserves_encoder_and_decoder():
    torch.manual_seed(0)
    options = {"encoder_weights": None, "classes": 3, "in_channels": 3, "dynamic_img_size": True}
    original = Pyramid("test_vit", decoder_channels=16, **options).eval()
    converted = network()
    image = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        assert_close(converted(image, DOMAINS), original(image))
    assert {type(norm.statistics).__name__ for norm in converted.norms()} == {"LayerStatistics"}


@pytest.mark.parametrize("decoder", PLAIN)
@pytest.mark.parametrize("name", ["test_vit3", "vit_base_patch16_siglip_224"])
def test_every_parameter_is_learned(decoder, name):
    model = network(name, decoder=decoder, **ENCODERS[name]).train()
    model(torch.randn(2, 3, 64, 64), DOMAINS).sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "test_resnet"}, "maps of strides.*plain vision transformers need 'pyramid'"),
        ({"name": "test_vit", "decoder": "unet"}, "need 'pyramid' or 'dpt'.*try one of these two"),
        (
            {"name": "vit_small_patch14_dinov2", "decoder": "dpt"},
            "a power of two, got 14 pixels; take decoder 'pyramid'",
        ),
    ],
)
def test_encoders_of_another_kind_are_refused(options, message):
    with pytest.raises(ConversionError, match=message):
        network(**options)


@pytest.mark.parametrize(("decoder", "step", "next_size"), [("pyramid", 16, 80), ("dpt", 32, 96)])
def test_sizes_that_are_no_multiples_are_refused_with_the_next_one(decoder, step, next_size):
    task, model = Segmentation(["a", "b", "c"], decoder=decoder), network(decoder=decoder)
    assert size_multiple(model.backbone) == step
    with pytest.raises(DataError, match=rf"multiples of {step}, such as \[{next_size}, 64\]$"):
        task.check_input(model, (next_size - 8, 64))
    task.check_input(model, (next_size, 64))
    with torch.no_grad():
        assert model(torch.randn(1, 3, next_size, 64), "day").shape == (1, 3, next_size, 64)


def test_decoder_learns_faster_than_the_encoder_by_layers():
    model = network()
    scales = layer_scales(model, 0.5)
    names = {name.removeprefix("backbone."): one for name, one in model.named_parameters()}
    assert scales[names["encoder.model.blocks.5.mlp.fc1.weight"]] == 0.5
    assert scales[names["encoder.model.pos_embed"]] == 0.5**7
    assert not scales.keys() & {one for name, one in names.items() if "encoder" not in name}
