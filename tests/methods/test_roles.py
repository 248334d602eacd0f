import pytest
import torch

from domainnorm.errors import ConversionError
from domainnorm.methods import Roles
from tests.methods.bench import fit, images, make, make_model, source_model

ROLE = Roles(("clean", "textured"), ("colour_cast",), "role")
SHARED = Roles(("clean", "textured"), ("colour_cast",), "one")


def rows(model, name):
    """Every row of a domain: scales, shifts and moments of all norms, flat."""
    label = model.domain_names.index(name)
    tables = [table for norm in model.norms() for table in norm.modulation.rows()]
    tables += [norm.statistics.running_mean for norm in model.norms()]
    return torch.cat([table.detach()[label] for table in tables])


def test_lenders_are_the_first_of_a_role_or_of_all():
    names = ("clean", "textured"), ("colour_cast", "other")
    assert Roles(*names).lenders == (0, 1, 2, 3)
    assert Roles(*names, "role").lenders == (0, 0, 2, 2)
    assert Roles(*names, "one").lenders == (0, 0, 0, 0)
    assert Roles(*names, "role").lent(("textured", "other", "clean")) == ("clean", "colour_cast")


def test_sources_learn_one_row_that_all_end_with():
    done = fit("source_only", make_model(roles=ROLE), ROLE)
    learned = rows(done.model, "clean")
    assert not torch.equal(learned, rows(make_model(roles=ROLE), "clean"))
    assert torch.equal(rows(done.model, "textured"), learned)
    assert torch.equal(rows(done.model, "colour_cast"), learned)


def test_one_row_for_all_is_batch_normalization_of_the_whole_batch():
    methods = []
    for norm in ("dsbn", "bn"):
        torch.manual_seed(0)
        methods.append(make("joint", make_model(norm, SHARED), SHARED))
        methods[-1].model.train()
    apart, plain = methods
    batch = {"image": torch.randn(6, 3, 32, 32), "domain": torch.tensor([0, 1, 2, 2, 0, 1])}
    torch.testing.assert_close(
        apart.outputs(apart._shared(batch)), plain.outputs(batch), rtol=1e-4, atol=1e-5
    )


def test_a_target_adapts_the_row_of_its_role():
    done = fit("adabn", source_model(roles=SHARED), SHARED)
    before = done.before["backbone.bn1.statistics.running_mean"]
    after = done.model.backbone.bn1.statistics.running_mean
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1:], before[1:])
    done.method.share_rows()
    assert torch.equal(after, after[:1].expand_as(after))


def test_clean_moments_are_those_of_the_images_as_they_are():
    given = fit("source_only", source_model(), moments="clean", lr=1e-9).model
    row = given.domain_names.index("clean")
    moments = next(given.norms()).statistics.running_mean[row]
    mean = first_maps(given, "clean").mean((0, 2, 3))
    torch.testing.assert_close(moments, mean, rtol=1e-3, atol=1e-4)


def first_maps(model, domain):
    """What the first norm sees of the training images of a domain, (N, C, H, W)."""
    seen, norm = [], next(model.norms())
    hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model.eval()(images(domain, "train"), domain)
    hook.remove()
    return seen[0]


def test_validation_sees_the_rows_that_learn():
    done = fit("source_only", make_model(roles=ROLE), ROLE, epochs=2)
    stored = done.method.predictions()["textured"]
    done.trainer.validate(done.method, datamodule=done.data, verbose=False)
    torch.testing.assert_close(
        done.method.predictions()["textured"].probabilities, stored.probabilities
    )


def test_shared_rows_have_no_distance_to_pull_them_together():
    with pytest.raises(ConversionError, match=r"rows_weight.*data\.rows"):
        make("joint", make_model(roles=SHARED), SHARED, rows_weight=0.1)


def test_restyled_images_leave_clean_moments_of_both_domains():
    given = fit("restyle", source_model(), moments="clean", epochs=1, lr=1e-9).model
    moments = next(given.norms()).statistics.running_mean
    for name in ("clean", "colour_cast"):
        mean = first_maps(given, name).mean((0, 2, 3))
        row = given.domain_names.index(name)
        torch.testing.assert_close(moments[row], mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["shot", "aad", "finetune"])
def test_methods_that_start_from_the_source_model_estimate_clean_moments_and_keep_its_rows(name):
    start = source_model()
    kept = rows(start, "clean")
    given = fit(name, start, moments="clean", epochs=1, lr=1e-9).model
    row = given.domain_names.index("colour_cast")
    moments = next(given.norms()).statistics.running_mean[row]
    mean = first_maps(given, "colour_cast").mean((0, 2, 3))
    torch.testing.assert_close(moments, mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(rows(given, "clean"), kept, rtol=0, atol=1e-6)
