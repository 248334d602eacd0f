import pytest

from domainnorm.errors import CheckpointError
from domainnorm.evaluation import write_json
from domainnorm.serve.prediction import check_free, replaced


def fill(place, images, *names):
    with replaced(place) as made:
        write_json({"images": str(images)}, made / "prediction.json")
        for name in names:
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(name)


def entries(place):
    return sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())


def test_files_of_an_earlier_prediction_are_gone(tmp_path):
    fill(tmp_path / "out", tmp_path, "predictions.csv", "masks/a.png", "overlays.png")
    fill(tmp_path / "out", tmp_path, "predictions.csv", "masks/b.png")
    assert entries(tmp_path) == [
        "out/masks/b.png", "out/prediction.json", "out/predictions.csv"
    ]  # fmt: skip


def test_error_leaves_the_earlier_prediction(tmp_path):
    fill(tmp_path / "out", tmp_path, "predictions.csv")
    with pytest.raises(IsADirectoryError), replaced(tmp_path / "out") as made:
        made.write_text("half of it")
    assert (tmp_path / "out/predictions.csv").read_text() == "predictions.csv"
    assert entries(tmp_path) == ["out/prediction.json", "out/predictions.csv"]


@pytest.mark.parametrize("names", [("predictions.csv",), ("prediction.json", "my own.txt")])
def test_folder_with_files_of_something_else_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=rf"other files \({names[-1]}\)"):
        check_free(tmp_path, tmp_path)


def test_predictions_of_other_images_are_not_replaced(tmp_path):
    fill(tmp_path / "out", tmp_path / "day", "predictions.csv")
    check_free(tmp_path / "out", tmp_path / "day")
    with pytest.raises(CheckpointError, match=f"predictions of other images, {tmp_path}/day; ch"):
        check_free(tmp_path / "out", tmp_path / "night")


def test_folder_whose_images_are_not_known_is_not_replaced(tmp_path):
    (tmp_path / "prediction.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"prediction\.json: cannot be read"):
        check_free(tmp_path, tmp_path)


def test_empty_and_missing_folders_are_free(tmp_path):
    check_free(tmp_path, tmp_path)
    check_free(tmp_path / "missing", tmp_path)
