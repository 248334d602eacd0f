import pytest

from domainnorm.errors import RecipeError
from domainnorm.recipe import read_grid
from domainnorm.recipe.grid import short


def labels(*words, reference="quickstart"):
    return [cell.label for cell in read_grid(reference, words).cells]


def test_cells_are_all_combinations_and_seeds_vary_fastest():
    found = labels("seed=[0,1]", "method=[tent,adabn]", "norm=[dsbn,cin]")
    methods, norms, seeds = ("tent", "adabn"), ("dsbn", "cin"), (0, 1)
    assert found == [f"{m} {n} seed {s}" for m in methods for n in norms for s in seeds]


def test_values_reach_the_recipes():
    cells = read_grid("quickstart", ["method=[tent,adabn]", "data.batch_size=[8,16]"]).cells
    found = [(cell.recipe.method.name, cell.recipe.data.batch_size) for cell in cells]
    assert found == [("tent", 8), ("tent", 16), ("adabn", 8), ("adabn", 16)]


def test_seeds_of_the_recipe_are_cells():
    found = labels("method=dann", "compare=[]", reference="digits/methods")
    assert found == ["seed 0", "seed 1", "seed 2"]


@pytest.mark.parametrize(
    ("word", "targets"),
    [
        ("data.target=[colour_cast]", [["colour_cast"]]),
        ("data.target=[[colour_cast],[textured]]", [["colour_cast"], ["textured"]]),
        ("data.target=[[colour_cast,textured]]", [["colour_cast", "textured"]]),
    ],
)
def test_list_where_a_list_is_the_value_is_one_and_nested_ones_are_several(word, targets):
    assert [cell.recipe.data.target for cell in read_grid("quickstart", [word]).cells] == targets


def test_list_that_a_key_can_hold_alone_is_one_value_though_the_recipe_has_none():
    cells = read_grid("quickstart", ["data.attributes=[a,b]", "compare=[source_only]"]).cells
    assert [cell.recipe.data.attributes for cell in cells] == [["a", "b"]]


def test_size_of_two_sides_is_nested_where_the_recipe_has_one_number():
    cells = read_grid("quickstart", ["data.image_size=[[32,64],48]"])
    assert [cell.recipe.data.image_size for cell in cells.cells] == [[32, 64], 48]
    cells = read_grid("quickstart", ["data.image_size=[32,48,64]"])
    assert [cell.recipe.data.image_size for cell in cells.cells] == [32, 48, 64]


def test_two_numbers_of_a_size_are_asked_about():
    with pytest.raises(RecipeError, match=r"one size or two\? Write \[\[32,64\]\]") as error:
        read_grid("quickstart", ["data.image_size=[32,64]"])
    one, two = ("data.image_size=[[32,64]]", "data.image_size=[[32,32],[64,64]]")
    assert all(word.partition("=")[2] in str(error.value) for word in (one, two))
    (cell,) = {str(one.recipe.data.image_size) for one in read_grid("quickstart", [one]).cells}
    assert cell == "[32, 64]"
    sizes = [cell.recipe.data.image_size for cell in read_grid("quickstart", [two]).cells]
    assert sizes == [[32, 32], [64, 64]]
    tall = read_grid("driving/camvid_dusk", ["data.image_size=[96,128]", "seed=[0]"])
    assert [cell.recipe.data.image_size for cell in tall.cells] == [[96, 128]]


def test_methods_of_the_grid_are_left_out_of_the_recipes_compare():
    cells = read_grid("quickstart", ["method=[adabn,tent]"]).cells
    for cell in cells:
        assert [named.name for named in cell.recipe.compare] == ["source_only", "oracle"]


def test_option_changes_the_method_named_before_it():
    cells = read_grid("quickstart", ["method=[tent]", "method.lr=[1e-3,1e-4]"]).cells
    assert [cell.recipe.method.options["lr"] for cell in cells] == [1e-3, 1e-4]
    assert [cell.label for cell in cells] == ["lr=0.001", "lr=0.0001"]


def test_every_problem_is_reported_at_once_with_its_cells():
    with pytest.raises(RecipeError) as caught:
        read_grid("quickstart", ["method=[tent,adabn]", "method.lr=[1e-3]", "norm=[dsbn,nope]"])
    assert len(caught.value.problems) == 2
    text = str(caught.value)
    assert "unknown key 'lr'" in text
    assert "(cells adabn dsbn; adabn nope)" in text
    assert "(cells tent nope; adabn nope)" in text


def test_problem_of_all_cells_is_told_once():
    with pytest.raises(RecipeError, match=r"1 problem\n.*unknown key.*\(every cell\)"):
        read_grid("quickstart", ["metod=tent", "seed=[0,1]"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["norm=[]"], r"norm: got \[\], expected at least one value"),
        (["method=[tent,tent]"], "tent: is the label of several cells"),
        (["data.target=[a,[b]]"], "a list of lists for several values"),
        (["method=[tent,{name: tent, as: other}]", "method=tent", "seed=[0,0]"], "seed 0: is the"),
        (["data.num_workers=[0,0.5]"], "got 0.5"),
    ],
)
def test_grid_that_cannot_be_meant_is_refused(words, message):
    with pytest.raises(RecipeError, match=message):
        read_grid("quickstart", words)


def test_cells_that_are_the_same_are_refused():
    with pytest.raises(RecipeError, match=r"'tent' and .*'tent\(lr=0.001\)' are the same"):
        read_grid("quickstart", ["method=[tent,{name: tent, lr: 1e-3}]"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("cin", "cin"),
        (None, "null"),
        ({"name": "tent", "as": "slow"}, "slow"),
        ({"name": "tent", "lr": 0.1}, "tent(lr=0.1)"),
        ({"early": "cin", "late": None}, "early=cin,late=null"),
        ([96, 128], "96+128"),
    ],
)
def test_value_in_a_word(value, text):
    assert short(value) == text


def test_folder_names_are_safe():
    (cell,) = read_grid("quickstart", ["norm=[{early: cin, late: dsbn}]"]).cells
    assert cell.slug == "quickstart"
    cells = read_grid("quickstart", ["norm=[{early: cin, 'late': dsbn},dsbn]"]).cells
    assert [cell.slug for cell in cells] == ["early_cin_late_dsbn", "dsbn"]
