import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.testing import assert_close

from domainnorm.backbones import data_config
from domainnorm.data import DomainDataModule, Loading, Preprocessing
from domainnorm.data.augmentation.degradation import Degradation
from domainnorm.errors import ConversionError, DataError, DomainNormError
from domainnorm.losses import charbonnier_loss, gradient_loss
from domainnorm.methods import Roles, domains_of
from domainnorm.norms import ConditionalNorm
from domainnorm.registry import METHODS
from domainnorm.run.machine import quiet_lightning
from domainnorm.tasks import Restoration
from tests.methods.bench import scans

ROLES = Roles(("clean",), ("colour_cast",))
FITTING = [name for name in METHODS.names() if not METHODS.load(name).tasks]
OTHERS = [name for name in METHODS.names() if name not in FITTING]


def task(**options):
    return Restoration([], width=4, blocks=1, **options)


def restorer(norm="cin", *, in_chans=3, **options):
    made = task(**options)
    return made.create_model("test_resnet", norm, ROLES.all, in_chans=in_chans)


def images(size=(20, 24), channels=3):
    return torch.rand(2, channels, *size)


def normalized(model, image):
    mean, std = (torch.tensor(data_config(model)[key])[:, None, None] for key in ("mean", "std"))
    return (image - mean) / std


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(16, 16), (13, 18)])
@pytest.mark.parametrize("norms", [True, False])
def test_untrained_network_gives_back_the_values_of_its_input(stride, size, norms):
    model = restorer("cin" if norms else None, stride=stride, norms=norms).eval()
    image = images(size)
    assert_close(model(normalized(model, image), "clean"), image, rtol=0, atol=1e-5)


def test_grey_images_are_restored_in_grey():
    model, image = restorer(in_chans=1).eval(), images(channels=1)
    low, high = model.backbone.low, model.backbone.high
    assert_close(model(image * (high - low) + low, "clean"), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["bn", "in", "cin", "dsbn", "cln"])
def test_every_norm_is_converted(norm):
    model = restorer(norm)
    assert any(isinstance(module, ConditionalNorm) for module in model.modules())
    assert not any(isinstance(module, nn.InstanceNorm2d) for module in model.modules())


def test_network_without_norms_has_none_and_one_set_of_weights():
    model, image = restorer(None, norms=False), images()
    nn.init.normal_(model.backbone.last.weight)
    assert not list(model.norms())
    assert not any("norm" in type(module).__name__.lower() for module in model.modules())
    assert not list(model.domain_rows())
    model.eval()
    assert model(image, "clean").equal(model(image, "colour_cast"))


def test_norm_for_a_network_without_norms_is_refused():
    with pytest.raises(ConversionError, match=r"task\.norms is false"):
        restorer("cin", norms=False)


def test_values_beyond_white_are_clipped_in_evaluation_alone():
    model, image = restorer(), images()
    nn.init.constant_(model.backbone.last.bias, 100.0)
    assert bool((model(image, "clean") > 10).all())
    assert_close(model.eval()(image, "clean"), torch.ones_like(image))


def test_outputs_of_tests_are_restored_images_beside_their_inputs():
    model, image = restorer().eval(), images()
    found = task().predict(model, normalized(model, image), torch.tensor([0, 1]))
    assert found.shape == (2, 2, 3, 20, 24)
    assert_close(found[:, 1], image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["l1", "charbonnier", "mse"])
def test_loss_is_that_of_pixels_and_of_gradients(loss):
    image, clean = images(), images()
    pixels = {
        "l1": (image - clean).abs().mean(),
        "charbonnier": charbonnier_loss(image, clean),
        "mse": (image - clean).square().mean(),
    }[loss]
    assert_close(task(loss=loss).loss(image, clean), pixels)
    both = pixels + 0.3 * gradient_loss(image, clean)
    assert_close(task(loss=loss, gradient_weight=0.3).loss(image, clean), both)


def test_hidden_images_have_no_gradient():
    image, clean = images().requires_grad_(), images()
    clean[1] = -1
    task(gradient_weight=1.0).loss(image, clean).backward()
    assert bool(image.grad[0].any())
    assert not bool(image.grad[1].any())


def test_batch_of_hidden_images_has_zero_loss():
    image = images().requires_grad_()
    loss = task().loss(image, torch.full_like(image, -1))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"loss": "l2"}, "task.loss: unknown value 'l2'"), ({"gradient_weight": -1.0}, "0 or more")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(DomainNormError, match=message):
        task(**options)


def test_other_shapes_and_small_images_are_refused():
    with pytest.raises(DomainNormError, match="same shape"):
        task().loss(images(), images((20, 25)))
    with pytest.raises(DataError, match="expected 11 or more"):
        task().check_input(restorer(), (10, 32))


@pytest.mark.parametrize("name", FITTING)
def test_methods_that_need_no_classes_restore_images(name):
    quiet_lightning()
    kind, model = METHODS.load(name), restorer("dsbn")
    data = DomainDataModule(
        scans(),
        domain_names=ROLES.all,
        labelled=domains_of(kind.labelled, ROLES),
        unlabelled=domains_of(kind.unlabelled, ROLES),
        preprocessing=Preprocessing.from_config(data_config(model), 16),
        loading=Loading(
            batch_size=16,
            degrade=Degradation(scale=2, noise=0.02),
            balance=kind.balance,
        ),
    )
    method = kind(model, task(), ROLES)
    trainer = Trainer(
        max_epochs=method.max_epochs or 1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=None if data.val_domains else 0,
    )
    method.eval_domains = data.val_domains
    trainer.fit(method, datamodule=data)
    method.eval_domains = data.test_domains
    trainer.test(method, datamodule=data, verbose=False)
    for one in method.predictions().values():
        assert one.metrics()["psnr"] > 10


@pytest.mark.parametrize("name", OTHERS)
def test_methods_of_classes_and_styles_are_refused(name):
    with pytest.raises(DomainNormError, match="this task has images to restore"):
        METHODS.load(name)(restorer("dsbn"), task(), ROLES)
