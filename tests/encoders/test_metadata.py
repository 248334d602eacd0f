"""The encoder that reads attributes instead of pixels."""

import copy
import random

import pytest
import torch
from torch.testing import assert_close

from domainnorm import adapt_online
from domainnorm.backbones import (
    add_domain,
    create_model,
    load_domain,
    load_model,
    remove_domain,
    save_domain,
    save_model,
    tiled_inference,
)
from domainnorm.encoders import create_encoder, extend_encoder, fit_encoder
from domainnorm.encoders.attribute_encoder import Vocabulary
from domainnorm.errors import CheckpointError, ConditionError, DomainNormError
from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.classification import Classification

DOMAINS = ["a", "b", "c"]
SIZES = (300, 60, 20)
CLASSES = ["x", "y", "z"]


def known_of(domain, count, missing=0.0, seed=0):
    """A scanner that tells the domain, an hour that hints at it, and a colour that does not."""
    draw = random.Random(10 * seed + domain)

    def maybe(value):
        return "" if draw.random() < missing else value

    return {
        "scanner": [maybe("ABC"[domain]) for _ in range(count)],
        "hour": [maybe(f"{draw.gauss(8 + 4 * domain, 2):.1f}") for _ in range(count)],
        "colour": [maybe(draw.choice(("red", "blue"))) for _ in range(count)],
    }


def batches(domains=(0, 1, 2), missing=0.0, seed=0):
    return [(known_of(d, SIZES[d], missing, seed), torch.full((SIZES[d],), d)) for d in domains]


def fit(encoder, domains=(0, 1, 2), missing=0.0):
    torch.manual_seed(0)
    fit_encoder(encoder, batches(domains, missing), batches(domains, missing, seed=1))
    return encoder


@pytest.fixture(scope="module")
def encoder():
    """Of domains of very different sizes; tests only read it."""
    return fit(create_encoder("metadata", 3))


@pytest.fixture
def model(encoder):
    made = create_model("test_resnet", num_classes=3, norm="dsbn", domains=DOMAINS)
    made.attach_encoder(copy.deepcopy(encoder))
    for owned in made.domain_rows():
        if owned.tensor.is_floating_point():
            torch.nn.init.uniform_(owned.tensor, 0.5, 1.5)
    return made.eval()


IMAGES = torch.rand(4, 3, 32, 32)
GIVEN = {"scanner": ["A", "C", None, "B"], "hour": [8, 16.5, None, 12], "colour": ["red"] * 4}


def test_columns_of_numbers_alone_hold_numbers():
    known = Vocabulary().learned(
        {"field": ["1.5", "3", ""], "site": ["1", "2", "north"], "empty": ["", "", ""]}
    )
    assert known.numbers == {"field": (2.25, 0.75)}
    assert known.values == (("site", "1"), ("site", "2"), ("site", "north"))
    assert known.columns == ("field", "site", "empty")


def test_vector_holds_flags_then_standardized_numbers_then_values():
    known = Vocabulary().learned({"field": ["1", "3"], "site": ["n", "s"]})
    found = known.vectors({"field": [3.0, None, "?"], "site": ["s", "unheard of", ""]})
    wanted = [
        [0, 0, 1, 0, 1],  # 3 is one spread above the mean, south
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],  # what is unknown, or no number, is missing
    ]
    assert_close(found, torch.tensor(wanted, dtype=torch.float32))


@pytest.mark.parametrize("value", [None, "", " ", "nan", "NaN", float("nan")])
def test_every_spelling_of_nothing_is_missing(value):
    known = Vocabulary().learned({"site": ["n", "s"]})
    assert_close(known.vectors({"site": [value]}), known.vectors({"site": [None]}))


def test_numbers_and_their_texts_are_the_same_value():
    known = Vocabulary().learned({"site": ["1", "2", "x"], "hour": ["1", "2"]})
    as_text = known.vectors({"site": ["1"], "hour": ["2"]})
    assert_close(known.vectors({"site": [1.0], "hour": [2]}), as_text)


def test_names_of_images_do_not_become_hundreds_of_values():
    names = [f"image{n}" for n in range(1000)] + ["often"] * 2
    known = Vocabulary().learned({"file": names})
    assert len(known.values) == 256
    assert ("file", "often") in known.values


def test_vocabulary_survives_being_stored():
    known = Vocabulary().learned({"site": ["nörd", 'a"b'], "hour": ["1.25", "7"]})
    assert Vocabulary.of_tensor(known.to_tensor()) == known


def test_domains_are_told_by_any_attribute_that_tells_them(encoder):
    for domain in range(3):
        scanner = encoder({"scanner": ["ABC"[domain]]})
        assert scanner.domain == domain
        assert scanner.weights[0, domain] > 0.8
        assert encoder({"hour": [8 + 4 * domain]}).domain == domain


def test_nothing_known_gives_close_to_uniform_weights(encoder):
    weights = encoder({"scanner": [None], "hour": [None]}).weights[0]
    assert weights.min() > 0.2
    assert weights.max() < 0.5


def test_gaps_of_one_domain_do_not_make_nothing_a_sign_of_it():
    given = {"scanner": ["A"] * 100 + ["B"] * 50 + [""] * 50}
    label = torch.arange(200) // 100
    encoder = create_encoder("metadata", 2)
    fit_encoder(encoder, [(given, label)], [(given, label)])
    assert_close(encoder({"scanner": [""]}).weights, torch.tensor([[0.5, 0.5]]), rtol=0, atol=0.02)
    assert encoder({"scanner": ["A", "B"]}).weights.diagonal().min() > 0.99


def test_column_that_a_domain_never_has_is_learned_from_the_others():
    given = {"scanner": ["A"] * 100 + [""] * 100, "hour": ["9"] * 100 + ["18"] * 100}
    label = torch.arange(200) // 100
    encoder = create_encoder("metadata", 2)
    fit_encoder(encoder, [(given, label)], [(given, label)])
    assert encoder({"scanner": ["A", ""], "hour": ["9", "18"]}).domain.tolist() == [0, 1]


@pytest.mark.parametrize("colour", ["red", "blue"])
def test_attribute_that_says_nothing_makes_no_domain_certain(encoder, colour):
    assert encoder({"colour": [colour]}).weights.max() < 0.6


def test_value_that_training_did_not_have_is_as_good_as_missing(encoder):
    unheard = encoder({"scanner": ["Z"], "hour": ["12"]})
    assert_close(unheard.weights, encoder({"scanner": [None], "hour": ["12"]}).weights)


def test_missing_values_do_not_make_an_image_unlike_all(encoder):
    found = torch.cat([encoder(known_of(d, 100, 0.3, seed=2)).is_known for d in range(3)])
    assert found.float().mean() > 0.9


def test_values_missing_in_training_are_learned_from():
    encoder = fit(create_encoder("metadata", 3), missing=0.3)
    right = [encoder(known_of(d, 100, seed=2)).domain == d for d in range(3)]
    assert torch.cat(right).float().mean() > 0.95
    assert encoder({"scanner": [None]}).weights.max() < 0.6


def test_counts_are_those_of_images_and_not_of_examples(encoder):
    assert encoder.gaussians.count.tolist() == list(SIZES)


def test_scanner_of_a_new_domain_is_told_from_nothing():
    encoder = fit(create_encoder("metadata", 3), domains=(0, 1))
    before = encoder.mlp[0].weight.clone()
    assert (encoder({"scanner": ["C"]}).weights < 0.8).all()
    extend_encoder(encoder, batches([2]))
    assert encoder({"scanner": ["C"]}).weights[0, 2] > 0.8
    assert encoder({"scanner": [None]}).weights[0, 2] < 0.5
    assert torch.equal(encoder.mlp[0].weight[:, : before.shape[1]], before)


def test_norms_get_what_the_attributes_tell(model):
    estimate = model.estimate(IMAGES, GIVEN)
    assert estimate.domain[[0, 1, 3]].tolist() == [0, 2, 1]
    assert_close(model(IMAGES, attributes=GIVEN), model(IMAGES, weights=estimate.weights))
    model.unseen = "estimate"
    assert_close(model(IMAGES, attributes=GIVEN), model(IMAGES, estimate.domain))


def test_known_labels_are_kept_beside_estimates(model):
    model.unseen = "estimate"
    found = model(IMAGES, torch.tensor([1, -1, 0, -1]), attributes=GIVEN)
    assert_close(found, model(IMAGES, torch.tensor([1, 2, 0, 1])))


def test_labels_alone_are_enough(model):
    assert model(IMAGES, ["a", "b", "c", "a"]).isfinite().all()


def test_columns_that_are_left_out_are_missing(model):
    assert_close(model(IMAGES, attributes={}), model(IMAGES, attributes={"hour": [None] * 4}))


def test_resolved_attributes_go_with_tiles(encoder):
    network = create_segmentation_model("test_resnet", 2, "dsbn", DOMAINS, width=16)
    network.attach_encoder(encoder)
    x = torch.rand(4, 3, 48, 48)
    resolved = network.eval().resolve_domain(x, attributes=GIVEN)
    tiles = tiled_inference(
        network, x, tile=48, overlap=8, domain=resolved["weights"], progress=False
    )
    assert_close(tiles, network(x, attributes=GIVEN).detach(), rtol=1e-4, atol=1e-4)


def test_batch_without_images_has_no_estimates(model):
    empty = {"scanner": [], "hour": []}
    assert model.estimate(IMAGES[:0], empty).weights.shape == (0, 3)


def test_weights_file_brings_columns_and_values_back(model, tmp_path):
    save_model(model, tmp_path / "m.safetensors", "test_resnet", CLASSES)
    other = create_model("test_resnet", num_classes=3, norm="dsbn", domains=["b", "new", "a", "c"])
    other.attach_encoder(create_encoder("metadata", 4))
    load_model(other.eval(), tmp_path / "m.safetensors")
    assert other.encoder.columns == ("scanner", "hour", "colour")
    assert_close(other(IMAGES, attributes=GIVEN), model(IMAGES, attributes=GIVEN))


def test_state_dict_of_torch_brings_them_back_too(model):
    other = create_model("test_resnet", num_classes=3, norm="dsbn", domains=DOMAINS)
    other.attach_encoder(create_encoder("metadata", 3))
    other.eval().load_state_dict(model.state_dict())
    assert_close(other(IMAGES, attributes=GIVEN), model(IMAGES, attributes=GIVEN))


def test_encoder_that_was_not_fitted_can_be_stored(tmp_path):
    made = create_model("test_resnet", num_classes=3, norm="dsbn", domains=DOMAINS)
    made.attach_encoder(create_encoder("metadata", 3))
    save_model(made, tmp_path / "m.safetensors", "test_resnet", CLASSES)
    load_model(made.eval(), tmp_path / "m.safetensors")
    with pytest.raises(ConditionError, match="knows no domain yet"):
        made(IMAGES, attributes=GIVEN)


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored[:-1],
        lambda stored: stored.float(),
        lambda stored: torch.tensor(list(b"[" * 100_000), dtype=torch.uint8),
        lambda stored: torch.tensor(
            list(b'{"columns":["a"],"numbers":{"b":[0.0,1.0]},"values":[]}'), dtype=torch.uint8
        ),
        lambda stored: torch.tensor(
            list(b'{"columns":["a"],"numbers":{"a":[NaN,1.0]},"values":[]}'), dtype=torch.uint8
        ),
    ],
)
def test_damaged_vocabulary_is_refused_and_changes_nothing(model, tmp_path, damage):
    before = copy.deepcopy(model.state_dict())
    model.encoder.vocabulary = damage(model.encoder.vocabulary)
    save_model(model, tmp_path / "m.safetensors", "test_resnet", CLASSES)
    model.encoder.vocabulary = before["encoder.vocabulary"]
    with pytest.raises(CheckpointError, match="vocabulary: not what encoder 'metadata' stores"):
        load_model(model, tmp_path / "m.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_tensors_of_another_size_than_the_vocabulary_are_refused(model, tmp_path):
    model.encoder.location = torch.zeros(99)
    save_model(model, tmp_path / "m.safetensors", "test_resnet", CLASSES)
    with pytest.raises(CheckpointError, match=r"encoder.location \(99,\), expected \(9,\)"):
        load_model(model, tmp_path / "m.safetensors")


def test_pack_tells_the_same_encoder_what_is_known_of_the_domain(model, tmp_path):
    save_domain(model, "a", tmp_path / "a.safetensors")
    poorer = copy.deepcopy(model)
    remove_domain(poorer, "a")
    load_domain(poorer, tmp_path / "a.safetensors")
    assert_close(poorer(IMAGES, attributes=GIVEN), model(IMAGES, attributes=GIVEN))


def test_pack_tells_an_encoder_of_other_attributes_nothing(model, tmp_path):
    save_domain(model, "a", tmp_path / "a.safetensors")
    other = copy.deepcopy(model)
    other.encoder._resize(Vocabulary().learned({"site": ["n", "s"]}))
    load_domain(other, tmp_path / "a.safetensors", "d")
    assert other.encoder.gaussians.known.tolist() == [True, True, True, False]


def test_added_domain_is_unknown_until_its_attributes_were_seen(model):
    add_domain(model, "d")
    assert (model.estimate(IMAGES, GIVEN).weights[:, 3] == 0).all()


def test_call_without_attributes_says_what_is_missing(model):
    message = (
        "attributes: missing; encoder 'metadata' estimates the domain by scanner, hour, colour: "
        "pass attributes={column: [value or None of each image]}, {} if nothing is known, or "
        "the domain"
    )
    for call in (model, model.estimate, model.forward_features):
        with pytest.raises(ConditionError) as raised:
            call(IMAGES)
        assert str(raised.value) == message
    with pytest.raises(ConditionError, match="attributes: missing"):
        model(IMAGES, torch.tensor([0, 1, -1, 0]))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"scanner": ["A", "B"]},
            "attributes: column 'scanner' has 2 values for 4 images; give one value, or None, for "
            "each",
        ),
        (
            {"scanner": "ABCA"},
            "attributes: column 'scanner' has 'ABCA' for 4 images; give one value, or None, for "
            "each",
        ),
        (
            {"scaner": ["A"] * 4},
            "attributes: unknown column 'scaner': did you mean 'scanner'? known: scanner, hour, "
            "colour",
        ),
    ],
)
def test_attributes_that_do_not_fit_are_named(model, attributes, message):
    with pytest.raises(ConditionError) as raised:
        model(IMAGES, attributes=attributes)
    assert str(raised.value) == message


def test_encoder_of_pixels_refuses_attributes():
    made = create_model("test_resnet", num_classes=3, norm="dsbn", domains=DOMAINS)
    with pytest.raises(ConditionError, match="attributes: this model has no encoder that reads"):
        made(IMAGES, "a", attributes=GIVEN)
    made.attach_encoder(create_encoder("style", 3))
    with pytest.raises(ConditionError, match="attributes: this model's encoder reads images"):
        made.estimate(IMAGES, GIVEN)


def test_no_columns_are_refused():
    with pytest.raises(ConditionError) as raised:
        fit_encoder(create_encoder("metadata", 2), [({}, torch.tensor([0, 1]))], [])
    assert str(raised.value) == (
        "encoder 'metadata': no attributes to learn from; give some columns, data.attributes in a "
        "recipe"
    )


def test_dropout_out_of_range_is_refused():
    with pytest.raises(DomainNormError, match=r"encoder.dropout: got 1.0, expected a number in"):
        create_encoder("metadata", 2, dropout=1.0)


@pytest.mark.slow
def test_compiled_call_takes_weights_and_no_attributes(model):
    weights = model.estimate(IMAGES, GIVEN).weights
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_close(compiled(IMAGES, weights=weights), model(IMAGES, attributes=GIVEN))
        domain = torch.tensor([0, 1, 2, 0])
        assert_close(compiled(IMAGES, domain), model(IMAGES, domain))
    with pytest.raises(ConditionError, match="reads text, which cannot be compiled; pass weights"):
        torch.export.export(model, (IMAGES,), strict=False)


def test_told_domains_need_no_attributes_where_looking_at_them_is_put_off(model, monkeypatch):
    domain = torch.tensor([0, 1, 2, 0])
    wanted = model(IMAGES, domain)
    monkeypatch.setattr("domainnorm.condition._has_unseen", lambda labels: True)  # as in a graph
    assert_close(model(IMAGES, domain), wanted)
    with pytest.raises(ConditionError, match="attributes: missing"):
        model(IMAGES, torch.tensor([0, 1, 2, -1]))


def test_stream_of_images_is_refused(model):
    with pytest.raises(ConditionError) as raised:
        adapt_online(model, "neo", task=Classification(CLASSES), rows="opened")
    assert str(raised.value) == (
        "neo: rows: 'opened' needs an encoder of images, but this one reads attributes; train with "
        "'encoder: style', 'backbone' or 'cnn'"
    )
