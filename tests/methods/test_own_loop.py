"""Methods in a trainer of one's own, with plain loaders of dictionaries."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from domainnorm.backbones import create_model
from domainnorm.errors import DomainNormError
from domainnorm.methods import Roles
from domainnorm.registry import METHODS
from domainnorm.tasks import Classification, MultiLabel, Segmentation
from tests.methods.bench import ONE, fit, make_data, scans

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*will run with no optimizer"),  # adabn
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start"),  # a teacher
]
NAMES = ("b", "a")  # not in the order of the roles
ROLES = Roles(["a"], ["b"])


def samples(domain, count=8, **more):
    return [
        {"image": torch.rand(3, 32, 32), "domain": domain, "target": n % 2, **more}
        for n in range(count)
    ]


def loader(*parts, **options):
    return DataLoader([one for part in parts for one in part], batch_size=8, **options)


def trainer(**options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(accelerator="cpu", max_epochs=1, **dict.fromkeys(quiet, False), **options)


def made(name, roles=ROLES, names=NAMES, **options):
    model = create_model("test_resnet", 2, "dsbn", names)
    return METHODS.load(name)(model, Classification(["cat", "dog"]), roles, **options)


@pytest.mark.parametrize(
    "name", ["source_only", "groupdro", "adabn", "tent", "dann", "mcd", "oracle"]
)
def test_method_is_fitted_and_tested_on_plain_loaders(name):
    method, own = made(name), trainer()
    own.fit(method, loader(samples("a"), samples("b"), shuffle=True), loader(samples("a")))
    (logged,) = own.test(method, loader(samples("b"), samples("a")), verbose=False)
    assert {one.split("/")[1] for one in logged} == {"a", "b"}
    found = method.predictions()
    assert {domain: one.index.tolist() for domain, one in found.items()} == {
        "a": [*range(8, 16)],
        "b": [*range(8)],
    }
    assert logged["test/b/accuracy"] == pytest.approx(found["b"].metrics()["accuracy"])


def seen_in_training(*parts):
    """Domain, target and mark of the images that reach the losses of a method."""
    method, batches = made("dann"), []
    losses = method.losses
    method.losses = lambda batch: batches.append(batch) or losses(batch)
    trainer().fit(method, loader(*parts, shuffle=True))
    names = ("domain", "target", "labelled")
    return [torch.cat([batch[name] for batch in batches]) for name in names]


def test_targets_that_a_method_may_not_see_are_hidden_in_training():
    domain, target, labelled = seen_in_training(samples("a"), samples("b"))
    assert labelled.tolist() == (domain == 1).tolist()
    assert (target[domain == 0] == -1).all()
    assert (target[domain == 1] >= 0).all()


def test_images_may_say_themselves_whether_they_are_labelled():
    parts = samples(0, labelled=True), samples(1, labelled=False)
    _, target, labelled = seen_in_training(*parts)
    assert labelled.sum() == 8
    assert (target >= 0).all()


def test_domains_without_images_have_no_predictions_and_no_part_in_the_selection():
    method, own = made("source_only"), trainer()
    own.fit(method, loader(samples("a")), loader(samples("a")))
    logged = own.callback_metrics
    assert logged["val/selection"] == logged["val/a/balanced_accuracy"]
    assert not [key for key in logged if key.startswith("val/b")]


def test_domains_outside_the_roles_keep_their_rows():
    method = made("source_only", names=("b", "other", "a"))
    before = [rows.tensor[1].clone() for rows in method.model.domain_rows()]
    trainer().fit(method, loader(samples("a")))
    after = [rows.tensor[1] for rows in method.model.domain_rows()]
    assert all(map(torch.equal, before, after))


def test_rows_of_a_role_are_found_by_name():
    method = made("joint", Roles(["a", "c"], ["b"], "role"), names=("b", "c", "a"))
    batch = method._shared({"domain": torch.tensor([0, 1, 2])})
    assert batch["domain"].tolist() == [0, 2, 2]


def test_images_without_targets_are_unlabelled():
    plain = [{"image": one["image"], "domain": "b"} for one in samples("b")]
    method, own = made("tent", epochs=1), trainer()
    own.fit(method, loader(plain))
    assert own.test(method, loader(plain), verbose=False) == [{}]
    assert not method.predictions()["b"].is_labelled


@pytest.mark.parametrize(
    ("task", "shape"),
    [(MultiLabel, (4, 2)), (Segmentation, (4, 32, 32)), (Classification, (4,))],
)
def test_missing_targets_have_the_shape_of_the_task(task, shape):
    model = create_model("test_resnet", 2, "dsbn", NAMES)
    method = METHODS.load("source_only")(model, task(["x", "y"]), ROLES)
    batch = {"image": torch.rand(4, 3, 32, 32), "domain": ["a", "b", "a", "b"]}
    assert method._completed(batch, training=True)["target"].shape == shape


@pytest.mark.parametrize(
    ("name", "batch", "problem"),
    [
        ("source_only", [(torch.rand(3, 32, 32), 0)], "batch: a list, expected a mapping"),
        ("source_only", [{"image": torch.rand(3, 32, 32)}], "batch: a dict with image, expected"),
        ("source_only", samples("aa"), "unknown domain 'aa': did you mean 'a'"),
        ("swad", samples("a"), "swad: no validation images"),
        ("mean_teacher", samples("a"), "for methods of two views"),
        ("shot", samples("b", labelled=False), "give the trainer a domainnorm.data.DomainDataM"),
    ],
)
def test_what_a_loader_lacks_is_named(name, batch, problem):
    with pytest.raises(DomainNormError, match=problem):
        trainer().fit(made(name), loader(batch))


def test_stream_needs_a_data_module():
    with pytest.raises(DomainNormError, match="NEO needs more images than those"):
        trainer(inference_mode=False).test(made("neo"), loader(samples("b")))


def test_what_is_logged_of_a_test_is_what_the_predictions_say():
    done = fit("source_only", epochs=1)
    data = make_data("source_only", done.model, ONE, 16)
    done.method.eval_domains = done.model.domain_names
    (logged, *_) = done.trainer.test(done.method, datamodule=data, verbose=False)
    told = done.method.predictions()["colour_cast"]
    assert logged["test/colour_cast/accuracy"] == pytest.approx(told.metrics()["accuracy"])
    assert told.index.tolist() == scans().positions(["colour_cast"], "test")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"source": "a"}, "source='a', expected a list of names"),
        ({"source": ["a", "b"], "target": ["b"]}, "b given twice"),
        ({"source": ["a"], "rows": "roles"}, "unknown value of rows 'roles': did you mean 'role'"),
    ],
)
def test_roles_that_are_none_are_refused(given, problem):
    with pytest.raises(DomainNormError, match=problem):
        Roles(**given)


def test_roles_of_other_domains_than_the_model_has_are_named_with_the_nearest():
    with pytest.raises(DomainNormError, match="unknown domain 'site_c': did you mean 'site_a'"):
        made("dann", Roles(["site_a"], ["site_c"]), ("site_a", "other"))
