import pytest
import torch
from torch import nn
from torch.testing import assert_close

from domainnorm import add_domain
from domainnorm.backbones import data_config
from domainnorm.encoders import create_encoder
from domainnorm.errors import ConversionError, DataError, UnknownNameError
from domainnorm.evaluation import StyleJudge
from domainnorm.norms import ConditionalNorm
from domainnorm.tasks import Translation, create_translator
from domainnorm.tasks.translator import (
    in_styles,
    pixels_of,
    shares_of_white,
    style_of_domains,
    style_of_image,
)

DOMAINS = ["a", "b"]


def translator(norm="cin", **options):
    return create_translator("test_resnet", norm, DOMAINS, width=4, **options)


def changed(**options):
    """A translator whose domains differ."""
    model = translator(**options)
    nn.init.normal_(model.backbone.last.weight)
    for norm in model.norms():
        nn.init.normal_(norm.modulation.scale)
    return model.eval()


def images(number=2, channels=3, size=(20, 24)):
    return torch.rand(number, channels, *size) - 0.5


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("size", [(32, 32), (21, 35), (5, 6)])
def test_untrained_network_gives_images_back(stride, size):
    image = images(size=size)
    model = translator(stride=stride).eval()
    assert_close(model(image, torch.tensor([0, 1])), image)


def test_every_norm_is_conditional():
    kinds = [type(module) for module in translator().modules()]
    assert ConditionalNorm in kinds
    assert not {nn.InstanceNorm2d, nn.BatchNorm2d} & set(kinds)


def test_image_depends_on_the_domain_asked_for():
    model, image = changed(), images()
    assert not torch.allclose(model(image, "a"), model(image, "b"))


def test_weights_mix_the_rows_of_domains():
    model, image = changed(), images(1)
    alone = model(image, weights=torch.tensor([[0.0, 1.0]]))
    assert_close(alone, model(image, "b"))
    half = model(image, weights=torch.tensor([[0.5, 0.5]]))
    assert not torch.allclose(half, alone)


def test_added_domain_starts_as_the_one_it_is_made_of():
    model, image = changed(), images()
    add_domain(model, "c", start="b")
    assert_close(model(image, "c"), model(image, "b"))


def test_images_stay_in_a_batch_what_they_are_alone():
    model, image = changed(), images(3)
    together = model(image, torch.tensor([0, 1, 0]))
    assert_close(together[1:2], model(image[1:2], "b"), rtol=1e-4, atol=1e-5)


def test_colours_beyond_white_are_clipped_in_evaluation_alone():
    model, image = translator(), images()
    nn.init.constant_(model.backbone.last.bias, 100.0)
    assert bool((model(image, "a") > 90).all())
    assert bool((shares_of_white(model, model.eval()(image, "a")) == 1).all())


def test_grey_images_stay_grey():
    model = translator(in_chans=1).eval()
    image = images(channels=1)
    assert_close(model(image, "a"), image)
    assert pixels_of(model, image).shape == (2, 20, 24, 3)
    assert data_config(model)["input_size"][0] == 1


def test_pixels_are_those_that_were_normalized():
    model = translator()
    config = data_config(model)
    pixels = torch.randint(256, (1, 4, 4, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(config[key]) for key in ("mean", "std"))
    image = ((pixels / 255 - mean) / std).movedim(-1, 1)
    assert pixels_of(model, image).tolist() == pixels.tolist()


def test_unknown_backbone_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="resnet18"):
        create_translator("resnet81", "cin", DOMAINS)


@pytest.mark.parametrize(("stride", "size"), [(2, 2), (4, 4)])
def test_images_too_small_for_instance_norms_are_refused(stride, size):
    task = Translation([], stride=stride)
    with pytest.raises(DataError, match=f"expected {stride + 1} or more"):
        task.check_input(translator(stride=stride), (size, size))


def task_of(name="test_resnet"):
    task = Translation([])
    task.look_through(name)
    return task


def test_frozen_network_is_neither_stored_nor_trained():
    task = task_of()
    task.levels(images())
    assert task.state_dict() == {}
    assert list(task.parameters()) == []


def test_judge_and_losses_see_other_levels():
    task = task_of()
    losses = {maps.shape[1] for maps in task.levels(images())}
    assert len(task.levels(images())) == 3
    assert [one.shape for one in task.describe(images())] == [(2, 96 + 192)] * 2
    assert losses == {32, 48}


def test_style_is_seen_by_weights_that_no_loss_has():
    style, everything = task_of().describe(images())
    assert not torch.allclose(style, everything)


def test_random_network_is_the_same_every_time():
    image = images()
    assert task_of().describe(image)[0].equal(task_of().describe(image)[0])


def test_frozen_network_without_weights_is_the_same_every_time():
    image = images()
    assert_close(task_of().levels(image), task_of().levels(image), rtol=0, atol=0)


def test_gradient_passes_the_frozen_network():
    image = images().requires_grad_()
    task_of().levels(image)[2].sum().backward()
    assert bool((image.grad != 0).any())


def test_shallow_network_is_refused():
    with pytest.raises(ConversionError, match="levels of feature maps"):
        task_of("pit_ti_224").levels(images())


def judges_of(task, image, domain):
    return tuple(StyleJudge(features, domain) for features in task.describe(image))


def test_examined_images_have_a_row_for_every_domain():
    task, model, image = task_of(), changed(), images(4, size=(32, 32))
    domain = torch.tensor([0, 1, 0, 1])
    judges = judges_of(task, image, domain)
    said = task.examine(model, image, domain, judges)
    store = task.store()
    store.update(said, domain, torch.arange(4))
    found = store.compute()
    assert found.judged.shape == (4, 2, 2)
    real = judges[0].scaled(task.describe(image)[0])
    assert_close(found.features[0, 0], real[0])
    assert_close(found.features[1, 1], real[1])
    made = judges[0].scaled(task.describe(model(image, "b"))[0])
    assert_close(found.features[0, 1], made[0])


def test_identity_has_all_of_the_structure_left():
    task, model, image = task_of(), translator().eval(), images(4, size=(32, 32))
    domain = torch.tensor([0, 1, 0, 1])
    said = task.examine(model, image, domain, judges_of(task, image, domain))
    assert_close(said[..., 2], torch.ones(4, 2))


def conditioned():
    """A translator that takes the style of an image."""
    norm = {"statistics": "instance", "modulation": "hyper"}
    model = changed_norms(translator(norm))
    model.attach_encoder(create_encoder("style", 2, model.backbone), end_to_end=True)
    model.encoder.gaussians.mean.copy_(torch.randn(2, 16))
    model.encoder.gaussians.count.fill_(5)
    return model.eval()


def changed_norms(model):
    nn.init.normal_(model.backbone.last.weight)
    for norm in model.norms():
        nn.init.normal_(norm.modulation.last.weight)
    return model


def test_style_of_domains_is_the_mean_embedding_of_their_images():
    model, image = conditioned(), images()
    mean = model.encoder.gaussians.mean
    made = in_styles(model, image, torch.tensor([1, 0]))
    assert_close(made, model(image, 0, embedding=mean[[1, 0]]))
    halves = style_of_domains(model, torch.tensor([[0.5, 0.5]]))
    assert_close(halves["embedding"], mean.mean(0, keepdim=True))


def test_style_of_an_image_is_its_embedding():
    model, image, shown = conditioned(), images(1), images(1, size=(40, 30))
    made = model(image, **style_of_image(model, shown))
    assert_close(made, model(image, 0, embedding=model.embed(shown)))
    assert not torch.allclose(made, model(image, **style_of_image(model, 3 * shown)))


def test_style_of_domains_without_embeddings_is_their_rows():
    model, image = changed(), images()
    assert style_of_domains(model, torch.eye(2)).keys() == {"weights"}
    labels = torch.tensor([1, 0])
    assert_close(in_styles(model, image, labels), model(image, labels), rtol=0, atol=0)
