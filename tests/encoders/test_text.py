"""The encoder that reads attributes as words."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from domainnorm import adapt_online
from domainnorm.backbones import create_model, load_model, save_model
from domainnorm.encoders import create_encoder, extend_encoder, fit_encoder
from domainnorm.encoders.text import Wording
from domainnorm.errors import CheckpointError, ConditionError, DomainNormError
from domainnorm.tasks.classification import Classification
from tests.reference.encoders import text_of

DEVICES = (["Aperio AT2", "Aperio CS2"], ["NanoZoomer XR", "NanoZoomer S60"], ["Pannoramic 250"])
DOMAINS = ["a", "b", "c"]
REPORT = "Blood film, May-Grünwald stain. " * 40


def batches(domains=(0, 1), report=""):
    """Devices of each domain, missing for one image in four."""
    return [
        (
            {
                "device": [
                    f"{report}{DEVICES[d][n % len(DEVICES[d])]}" * (n % 4 > 0) for n in range(40)
                ]
            },
            torch.full((40,), d),
        )
        for d in domains
    ]


def fit(name, report="", **options):
    encoder = create_encoder(name, 3, **options)
    fit_encoder(encoder, batches(report=report), batches(report=report))
    return encoder


@pytest.fixture(scope="module")
def encoder():
    """Of two of three domains; tests only read it."""
    return fit("text")


def whole(known, text):
    """Buckets (B,) of a text of a column that may have any."""
    vector = np.zeros(known.buckets)
    for bucket, amount in known.parts("device", text).items():
        vector[int(bucket)] = amount
    return vector


@pytest.mark.parametrize("buckets", [7, 64, 4096])
@pytest.mark.parametrize(
    "text",
    [
        "Aperio AT2",
        "a a A b",
        "tecom_rapid, 40x/0.75; May-Grünwald–Giemsa",
        "İstanbul ﬁlm ½ ＡＴ２ straße",
        "血液涂片 扫描仪",
        REPORT,
        "-- ? --",
    ],
)
def test_words_equal_the_loop_over_characters(text, buckets):
    found = whole(Wording(buckets=buckets), text)
    np.testing.assert_allclose(found, text_of("device", text, buckets), atol=1e-12)


@pytest.mark.parametrize(
    "text", ["APERIO at2", "at2: aperio", "Aperio\tAT2 (Aperio)", "ＡＰＥＲＩＯ ＡＴ２"]
)
def test_case_order_punctuation_and_width_do_not_matter(text):
    known = Wording()
    assert known.parts("device", text) == known.parts("device", "Aperio AT2")


def test_columns_have_buckets_of_their_own():
    known = Wording().learned({"device": ["Aperio"], "stain": ["Aperio"]})
    found = known.vectors({"device": ["Aperio"], "stain": [None]})[0]
    owners = torch.tensor(known.owners)
    assert_close(found.square()[owners == 0].sum(), torch.tensor(1.0))
    assert found[owners == 1].tolist() == [1] + [0] * (len(known.values) // 2)
    assert known.parts("device", "Aperio").keys() != known.parts("stain", "Aperio").keys()


@pytest.mark.slow
def test_words_are_the_same_in_every_process():
    asked = "print(Wording().parts('device', 'Aperio AT2'))"
    code = f"from domainnorm.encoders.text import Wording; {asked}"
    spelled = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert spelled == {str(Wording().parts("device", "Aperio AT2"))}


def test_unseen_value_is_told_by_the_words_that_it_shares(encoder):
    given = {"device": ["Aperio GT450 DX", "nanozoomer 2.0-HT", "Hamamatsu Nanozomer S360"]}
    estimate = encoder(given)
    assert estimate.domain.tolist() == [0, 1, 1]
    assert estimate.weights[range(3), [0, 1, 1]].min() > 0.8
    weights = fit("metadata")(given).weights  # missing, all of them
    assert_close(weights[:, :2], torch.full((3, 2), 0.5), rtol=0, atol=0.02)


def test_text_that_shares_words_is_near_the_domain(encoder):
    assert encoder({"device": ["Aperio AT2", "Aperio AT2 DX", "NanoZoomer"]}).is_known.all()


@pytest.mark.parametrize("text", ["quux", "?!", " ", "nan", None])
def test_text_that_shares_nothing_is_missing(text):
    known = Wording().learned({"device": ["Aperio AT2", "NanoZoomer"]})
    assert_close(known.vectors({"device": [text]}), known.vectors({"device": [None]}))


def test_missing_share_is_that_of_what_training_did_not_have():
    known = Wording().learned({"device": ["Aperio AT2"]})
    (found,) = known.vectors({"device": ["Aperio GT450"]})
    assert 0 < found[0] < 1
    assert_close(found[0] + found[1:].square().sum(), torch.tensor(1.0))
    assert known.vectors({"device": ["AT2, Aperio"]})[0, 0] == 0


def test_nothing_known_gives_close_to_uniform_weights(encoder):
    weights = encoder({"device": [None]}).weights[0, :2]
    assert_close(weights, torch.full((2,), 0.5), rtol=0, atol=0.05)


def test_numbers_are_near_each_other_as_numbers():
    given = {"hour": [f"{9 + n % 2 * 9 + n / 100:.2f}" for n in range(80)], "empty": [""] * 80}
    label = torch.arange(80) % 2
    encoder = create_encoder("text", 2)
    fit_encoder(encoder, [(given, label)], [(given, label)])
    assert encoder.columns == ("hour", "empty")
    assert encoder({"hour": [8, "19.5", None], "empty": ["x", "", None]}).domain[:2].tolist() == [
        0,
        1,
    ]


def test_device_is_found_in_a_long_report():
    encoder = fit("text", REPORT)
    told = encoder({"device": [f"{REPORT} Aperio GT450", f"NanoZoomer S360. {REPORT}", REPORT]})
    assert told.domain[:2].tolist() == [0, 1]
    assert told.weights[2].max() < 0.9


def test_what_is_lost_in_training_is_flagged(encoder):
    known, generator = encoder._known, torch.Generator().manual_seed(0)
    features = known.vectors({"device": ["Aperio AT2", None] * 50})
    lost = encoder.thinned(features, generator)
    assert_close(lost[:, 0] + lost[:, 1:].square().sum(1), torch.ones(100))
    assert lost[::2, 0].min() < 0.1
    assert lost[::2, 0].max() > 0.9
    assert torch.equal(lost[1::2], features[1::2])


def test_words_of_a_new_domain_are_told_from_nothing(encoder):
    grown = copy.deepcopy(encoder)
    extend_encoder(grown, batches([2]))
    assert grown({"device": ["Pannoramic 1000", "Aperio GT450"]}).domain.tolist() == [2, 0]
    former = encoder.mlp[0].weight
    assert torch.equal(grown.mlp[0].weight[:, : former.shape[1]], former)


@pytest.fixture
def model(encoder):
    made = create_model("test_resnet", num_classes=2, norm="dsbn", domains=DOMAINS)
    made.attach_encoder(copy.deepcopy(encoder))
    return made.eval()


def stored(model, path):
    save_model(model, path, "test_resnet", ["x", "y"])
    return path


def test_weights_file_keeps_its_buckets_and_holds_no_word(model, tmp_path):
    path = stored(model, tmp_path / "m.safetensors")
    assert b"Aperio" not in path.read_bytes()
    assert b"aperio" not in path.read_bytes()
    other = create_model("test_resnet", num_classes=2, norm="dsbn", domains=DOMAINS).eval()
    other.attach_encoder(create_encoder("text", 3, buckets=100))
    load_model(other, path)
    x, given = torch.rand(2, 3, 32, 32), {"device": ["Aperio GT450", None]}
    assert other.encoder._known.buckets == 4096
    assert_close(other(x, attributes=given), model(x, attributes=given))


@pytest.mark.parametrize(("first", "second"), [("text", "metadata"), ("metadata", "text")])
def test_file_of_the_other_encoder_of_attributes_is_refused(first, second, tmp_path):
    made = create_model("test_resnet", num_classes=2, norm="dsbn", domains=DOMAINS).eval()
    made.attach_encoder(fit(first))
    path = stored(made, tmp_path / "m.safetensors")
    made.attach_encoder(create_encoder(second, 3))
    with pytest.raises(CheckpointError, match=f"not what encoder '{second}' stores .has .*another"):
        load_model(made, path)


@pytest.mark.parametrize("buckets", [b"0", b"-1", b"true", b'"9"'])
def test_damaged_number_of_buckets_is_refused(buckets):
    text = b'{"columns":[],"numbers":{},"values":[],"buckets":%s}' % buckets
    with pytest.raises(CheckpointError, match="sizes"):
        Wording.of_tensor(torch.tensor(list(text), dtype=torch.uint8))


def test_messages_name_the_encoder(model):
    with pytest.raises(ConditionError, match="encoder 'text' estimates the domain by device: pass"):
        model(torch.rand(1, 3, 32, 32))
    with pytest.raises(ConditionError, match="encoder 'text': no attributes to learn from"):
        fit_encoder(create_encoder("text", 2), [({}, torch.tensor([0, 1]))], [])
    with pytest.raises(ConditionError, match="this one reads attributes"):
        adapt_online(model, "neo", task=Classification(["x", "y"]), rows="opened")


def test_options_out_of_range_are_refused():
    with pytest.raises(DomainNormError, match=r"encoder.buckets: got 0, expected 1 or more"):
        create_encoder("text", 2, buckets=0)
    with pytest.raises(DomainNormError, match=r"encoder.dropout: got -1, expected a number in"):
        create_encoder("text", 2, dropout=-1)
