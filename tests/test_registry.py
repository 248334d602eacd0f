import inspect
import sys
from importlib import invalidate_caches
from textwrap import dedent
from typing import Any, Literal

import pytest

from domainnorm import registry
from domainnorm.errors import DomainNormError, UnknownNameError
from domainnorm.registry import REQUIRED, Registry

BASE = """
    class Base:
        size: int = 3
        kind = "base"
        made = object()

        def __init__(self, first, *, rate: float = 0.5, steps: int | None = None, **rest):
            pass
    """
ENTRY = """
    from {package}._base import Base
    from domainnorm.registry import register

    raise RuntimeError("the registry imported this file")

    @register
    class Entry(Base):
        \"\"\"What it does.

        More.
        \"\"\"

        size: int = 4

        def __init__(self, first, *, mode: Literal["a", "b"] = "a", rate: float, **rest):
            pass
    """


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    """An importable folder; call it to add a file."""
    name = f"entries_{abs(hash(request.node.name))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(file, text):
        (tmp_path / name / f"{file}.py").write_text(dedent(text).replace("{package}", name))
        invalidate_caches()
        return Registry("thing", name)

    yield add
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


@pytest.fixture
def entry(package):
    package("_base", BASE)
    return package("mine", ENTRY).entry("mine")


def test_file_is_an_entry_called_like_the_file_and_is_not_imported(package):
    package("_base", BASE)
    assert package("mine", ENTRY).names() == ["mine"]


def test_parameters_are_those_of_the_signature_and_its_base(entry):
    found = {name: (p.annotation, p.default) for name, p in entry.parameters.items()}
    assert found == {
        "rate": (float, REQUIRED),
        "steps": (int | None, None),
        "mode": (Literal["a", "b"], "a"),
    }


def test_constants_are_literals_of_the_class_and_its_bases(entry):
    assert entry.constants == {"size": 4, "kind": "base"}


def test_summary_is_the_first_line_of_the_docstring(entry):
    assert entry.summary == "What it does."


def test_unknown_name_answers_with_the_nearest_and_the_list(package):
    package("_base", BASE)
    with pytest.raises(UnknownNameError, match="unknown thing 'mime': did you mean 'mine'"):
        package("mine", ENTRY).entry("mime")


def test_load_imports_and_returns_the_object(package):
    text = "from domainnorm.registry import register\n@register\ndef make(*, a: int = 1): return a"
    assert package("made", text).load("made")(a=5) == 5


def test_parameter_without_annotation_takes_anything(package):
    text = "from domainnorm.registry import register\n@register\ndef make(*, a=1): return a"
    assert package("made", text).entry("made").parameters["a"].annotation is Any


@pytest.mark.parametrize("parameter", ["a: Path = 1", "a: int = made()", "a: x.y = 1"])
def test_parameter_that_no_recipe_can_give_is_named(package, parameter):
    text = f"from domainnorm.registry import register\n@register\ndef make(*, {parameter}): ..."
    with pytest.raises(DomainNormError, match="parameter 'a' cannot be a recipe key"):
        package("made", text).entry("made").parameters  # noqa: B018


FAMILY = """
    from domainnorm.registry import register

    class Base:
        task = "segmentation"

        def __init__(self, first, *, rate: float = 0.5):
            pass

    @register
    class Family(Base):
        \"\"\"The usual one.\"\"\"

    @some_decorator(
        with_argument=1,
    )
    @register("foggy_family")
    @another
    class Foggy(Base):
        \"\"\"The same in fog.\"\"\"
        task = "classification"

    @register('made-2')
    def made(first, *, count: int = 2): ...
    """


def test_one_file_takes_several_entries_with_their_own_names(package):
    assert package("family", FAMILY).names() == ["family", "foggy_family", "made-2"]


def test_entries_of_one_file_have_their_own_signatures_and_constants(package):
    things = package("family", FAMILY)
    assert {name: list(things.entry(name).parameters) for name in things.names()} == {
        "family": ["rate"],
        "foggy_family": ["rate"],
        "made-2": ["count"],
    }
    assert things.entry("family").constants == {"task": "segmentation"}
    assert things.entry("foggy_family").constants == {"task": "classification"}
    assert things.entry("foggy_family").summary == "The same in fog."


def test_entry_with_its_own_name_is_loaded_unchanged(package):
    text = """
        from domainnorm.registry import register
        @register("other")
        class Entry: ...
    """
    assert package("made", text).load("other").__name__ == "Entry"


@pytest.mark.parametrize(
    ("file", "mark"), [("made", '@register("family")'), ("family_two", '@register("family")')]
)
def test_name_registered_twice_names_both_places(package, file, mark):
    text = f"from domainnorm.registry import register\n{mark}\nclass Other: ...\n"
    package("family", FAMILY)
    with pytest.raises(DomainNormError, match=rf"'family' is registered twice.*{file}:Other") as it:
        package(file, text).names()
    assert ".family:Family" in str(it.value)


def test_two_entries_of_one_file_need_two_names(package):
    text = "@register\nclass A: ...\n@register\nclass B: ...\n"
    with pytest.raises(DomainNormError, match=r"made:A and .*made:B"):
        package("made", text).names()


def test_name_that_is_not_in_quotes_is_refused(package):
    text = 'NAME = "x"\n@register(NAME)\nclass Other: ...\n'
    with pytest.raises(DomainNormError, match=r"made:Other: @register takes a name in quotes"):
        package("made", text).names()


KINDS = [kind for kind in vars(registry).values() if isinstance(kind, registry.Registry)]
ENTRIES = [pytest.param(k, n, id=f"{k.kind}-{n}") for k in KINDS for n in k.names()]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_what_is_read_from_the_source_is_what_the_class_has(kind, name):
    entry, loaded = kind.entry(name), kind.load(name)
    if isinstance(loaded, type):
        assert {key: getattr(loaded, key) for key in entry.constants} == entry.constants
    given = inspect.signature(loaded).parameters.values()
    own = {p.name: p.default for p in given if p.kind is inspect.Parameter.KEYWORD_ONLY}
    told = {key: one.default for key, one in entry.parameters.items()}
    empty = inspect.Parameter.empty
    for key, default in own.items():
        assert told[key] == default or (told[key] is registry.REQUIRED and default is empty), key
