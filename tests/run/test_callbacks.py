"""Callbacks of Lightning that another package offers."""

import pytest

from domainnorm import registry
from domainnorm.errors import RecipeError
from domainnorm.recipe import load_recipe
from domainnorm.registry import CALLBACKS
from tests.run.tiny import call, recipe, run

CODE = '''
from lightning.pytorch import Callback


class Notes(Callback):
    """Writes down where epochs end."""

    def __init__(self, *, file: str, word: str = "epoch"):
        self.file, self.word = file, word

    def on_train_epoch_end(self, trainer, pl_module):
        with open(self.file, "a") as notes:
            notes.write(f"{self.word} {trainer.current_epoch}\\n")
'''


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A file that the callback of an installed package writes to."""
    place = tmp_path / "packages"
    described = place / "their_package-1.0.dist-info"
    described.mkdir(parents=True)
    (place / "their_callbacks.py").write_text(CODE)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0")
    points = "[domainnorm]\ncallback.notes = their_callbacks:Notes"
    (described / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(place))
    registry._entry_points.cache_clear()
    CALLBACKS.__dict__.pop("_entries", None)
    yield tmp_path / "notes.txt"
    monkeypatch.undo()
    registry._entry_points.cache_clear()
    CALLBACKS.__dict__.pop("_entries", None)


def test_callback_of_an_installed_package_sees_every_stage(notes, tmp_path):
    words = ("method=source_only", "compare=[]")
    run(tmp_path, *words, f"trainer.callbacks=[{{name: notes, file: {notes}, word: end}}]")
    assert notes.read_text() == "end 0\nend 1\n"


def test_keys_of_a_callback_are_those_of_its_signature(notes, tmp_path):
    with pytest.raises(RecipeError) as caught:
        recipe("trainer.callbacks={name: notes, words: a}")
    assert "trainer.callbacks.words: unknown key 'words': did you mean 'word'?" in str(caught.value)
    assert "trainer.callbacks.file: missing, expected a text" in str(caught.value)
    asked = recipe(f"trainer.callbacks={{name: notes, file: {notes}}}")
    (tmp_path / "again.yaml").write_text(asked.to_yaml())
    assert load_recipe(str(tmp_path / "again.yaml")) == asked
    assert asked.trainer.callbacks == [{"name": "notes", "file": str(notes), "word": "epoch"}]


@pytest.mark.parametrize("name", ["EarlyStopping", "os.system"])
def test_name_that_is_not_installed_is_unknown(name, capsys):
    assert call("check", "quickstart", f"trainer.callbacks=[{name}]") == 2
    said = capsys.readouterr().err
    assert f"trainer.callbacks[0]: unknown callback '{name}': known: none" in said
    assert CALLBACKS.names() == []
