"""Runs whose norms are conditioned on attributes of a table instead of on pixels."""

import csv

import cv2
import pytest
import torch

from domainnorm.backbones import load_domain
from domainnorm.errors import ConditionError, DataError, RecipeError
from domainnorm.ranges import problem_of_task
from domainnorm.recipe import load_recipe
from domainnorm.registry import METHODS
from domainnorm.run.models import load_stored
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.trial import sample_recipe
from domainnorm.serve import export_run, predict_run
from tests.combinations import few
from tests.run.shops import SHOPS, run_folder, write_recipe, write_shops
from tests.run.tiny import assert_tested_again, call, metrics

SOME = ("adabn", "mcc", "mean_teacher", "shot", "tent_online", "oracle")


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Pictures of two shops with a camera each, which is not noted for three pictures in ten."""
    root = tmp_path_factory.mktemp("shops")
    write_shops(root, "camera", lambda n, shop: "" if n * 7 % 10 < 3 else f"camera of {shop}")
    return root


@pytest.fixture(scope="module", params=few(1, ["some", "every"]))
def asked(shops, request):
    # Every method gets batches with text in them.
    names = SOME if request.param == "some" else METHODS.names()
    kinds = {name: METHODS.load(name).tasks for name in names if name != "joint"}
    others = ", ".join(
        one for one in kinds if not problem_of_task(one, kinds[one], "classification")
    )
    views = "augment: {source: [FDA], target: {weak: [], strong: [RandomBrightnessContrast]}}\n"
    return write_recipe(shops, "camera, hour", "metadata", others, views)


@pytest.fixture(scope="module")
def folder(asked, tmp_path_factory):
    return run_folder(asked, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def stage(folder):
    return folder / "stages" / "shop_a-to-shop_b" / "seed0"


@pytest.mark.slow
def test_domain_is_told_where_the_camera_is_noted(folder):
    found = metrics(folder)
    for shop in SHOPS:
        assert found["joint", shop]["domain_accuracy"] >= 0.6
    assert found["source_only", "shop_a"]["domain_accuracy"] == 1
    assert found["source_only", "shop_b"]["domain_accuracy"] is None
    assert found["adabn", "shop_b"]["domain_accuracy"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["id_or_estimate", "estimate"])
def test_every_condition_reads_the_attributes(asked, tmp_path, condition):
    words = ("method=source_only", "compare=[]", f"condition={condition}")
    assert call("run", asked, *words, "--output", str(tmp_path)) == 0
    found = metrics(next(tmp_path.glob("*/*/metrics.json")).parent)
    assert found["source_only", "shop_a"]["domain_accuracy"] == 1


def test_figures_of_the_encoder_are_drawn(folder):
    for kind in ("nearest", "embeddings"):
        assert list((folder / "figures").glob(f"{kind}_*.png")), kind


def test_testing_again_gives_the_same_table(folder, capsys):
    assert_tested_again(folder, capsys)


def test_stored_model_needs_no_table(stage):
    model = load_stored(stage / "joint").model
    image, cameras = torch.rand(2, 3, 32, 32), ["camera of shop_a", "camera of shop_b"]
    assert model.encoder.columns == ("camera", "hour")
    assert model.estimate(image, {"camera": cameras}).domain.tolist() == [0, 1]
    assert model(image, attributes={"camera": cameras}).isfinite().all()
    weights = model.estimate(image, {}).weights
    assert weights.min() > 0.2


def test_packs_carry_what_the_attributes_tell(stage):
    model = load_stored(stage / "joint").model
    image, camera = torch.rand(1, 3, 32, 32), {"camera": ["camera of shop_b"]}
    before = model.estimate(image, camera).weights
    load_domain(model, stage / "joint" / "packs" / "shop_b.safetensors", "again")
    again = model.estimate(image, camera).weights
    torch.testing.assert_close(again[:, 1], again[:, 2])
    assert again[0, 1] < before[0, 1]


def test_stream_of_files_is_refused(stage, tmp_path, capsys):
    (tmp_path / "stream").mkdir()
    cv2.imwrite(str(tmp_path / "stream" / "a.png"), torch.zeros(8, 8, 3).byte().numpy())
    words = ("--stream", str(tmp_path / "stream"), "--output", str(tmp_path / "out"))
    assert call("adapt", str(stage / "joint"), *words) != 0
    assert "'opened' needs an encoder of images, but" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_exported_program_takes_the_domain_as_ever(folder, tmp_path):
    made = export_run(folder, "torch_export", stage=None, output=tmp_path / "made")
    assert made.stage.endswith("joint")
    assert made.difference < 1e-4


def test_batches_carry_text_beside_the_tensors(asked):
    parts = Parts(load_recipe(asked))
    (given, label), *others = _data(parts).domain_attributes("train")
    assert others == []
    assert {len(values) for values in given.values()} == {len(label)}
    batch = next(iter(_data(parts).test_dataloader()[1]))
    assert set(batch["attributes"]["camera"]) == {"", "camera of shop_b"}
    assert len(batch["attributes"]["hour"]) == len(batch["image"])


def _data(parts):
    stage = plan_stages(parts.recipe)[-1]
    return parts.data(stage, parts.model(stage))


def test_drawn_table_of_a_sample_has_the_attributes_of_the_recipe(asked, tmp_path):
    small = sample_recipe(load_recipe(asked, ["data.table=manifest.csv"]), tmp_path)
    records = Parts(small).dataset.records
    assert {record.metadata["camera"] for record in records} == set(SHOPS)
    assert {record.metadata["hour"] for record in records} > {"8", "9"}


def test_column_that_the_table_lacks_is_named_with_those_there_are(asked, shops):
    with pytest.raises(DataError) as raised:
        Parts(load_recipe(asked, ["data.attributes=[camra]"]))
    assert str(raised.value) == (
        f"data.attributes: {shops}/manifest.csv: unknown attribute 'camra': did you mean 'camera'? "
        "known: hour, camera"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.attributes=[]"],
            "encoder: 'metadata' estimates domains from attributes of images, but there are "
            "none; name some, such as data.attributes: [scanner]",
        ),
        (["data.attributes=[hour, hour]"], "data.attributes: names 'hour' 2 times"),
        (["data.attributes=hour"], "data.attributes: got 'hour', expected a list"),
    ],
)
def test_mistakes_are_named(asked, words, message):
    with pytest.raises(RecipeError) as raised:
        load_recipe(asked, words)
    assert message in str(raised.value)


def test_attributes_of_an_encoder_of_pixels_do_no_harm(asked):
    assert load_recipe(asked, ["encoder=style"]).data.attributes == ["camera", "hour"]


def test_training_needs_the_domain(stage):
    model = load_stored(stage / "joint").model.train()
    with pytest.raises(ConditionError, match="domain: missing"):
        model(torch.rand(2, 3, 32, 32), attributes={})


@pytest.mark.slow
def test_attributes_can_condition_the_norms_directly(asked, tmp_path, capsys):
    """The encoder learns with the network, in every method."""
    words = ("norm=film", "condition=embedding", "--output", str(tmp_path))
    assert call("run", asked, *words) == 0
    folder = next(tmp_path.glob("*/*/metrics.json")).parent
    stored = load_stored(folder / "stages/shop_a-to-shop_b/seed0/joint")
    image = torch.rand(2, 3, 32, 32)
    cameras = {"camera": ["camera of shop_a", "camera of shop_b"]}
    assert stored.model(image, attributes=cameras).isfinite().all()
    with pytest.raises(ConditionError, match="attributes: missing"):
        stored.model(image, "shop_a")
    assert_tested_again(folder, capsys)
    with pytest.raises(ConditionError, match="attributes: missing; the norms of this"):
        export_run(folder, "torch_export", stage="stages/shop_a-to-shop_b/seed0/joint")


def test_images_of_a_table_are_predicted_by_their_attributes(stage, shops, tmp_path):
    with (shops / "manifest.csv").open(newline="") as stream:
        lines = [line for line in csv.DictReader(stream) if line["camera"]]
    table = shops / "untold.csv"
    rows = [f"{line['path']},{line['camera']},{line['hour']}\n" for line in lines]
    table.write_text("".join(["path,camera,hour\n", *rows]))
    done = predict_run(stage / "joint", table, tmp_path / "out")
    assert done.by == {"mixture": len(lines)}
    with (done.folder / "predictions.csv").open(newline="") as stream:
        told = [line["domain"] for line in csv.DictReader(stream)]
    assert told == [line["camera"].removeprefix("camera of ") for line in lines]


def test_told_domains_of_a_manifest_need_no_attributes(stage, shops, tmp_path):
    done = predict_run(stage / "joint", shops / "manifest.csv", tmp_path / "out")
    assert done.by == {"told": done.images}
    assert {"camera", "hour"} <= set(done.unused)


def test_attributes_that_are_missing_are_asked_for(stage, shops, tmp_path):
    with pytest.raises(ConditionError, match=r"CSV with the columns image, camera, hour.*--domain"):
        predict_run(stage / "joint", shops, tmp_path / "out")
    (shops / "gap.csv").write_text("image,camara,hour\na.png,,\n")
    with pytest.raises(ConditionError, match="unknown column 'camera': did you mean 'camara'"):
        predict_run(stage / "joint", shops / "gap.csv", tmp_path / "out")
