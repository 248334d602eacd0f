import numpy as np
import pytest

from domainnorm.data.datasets.label_sets import CAMVID11
from domainnorm.data.drawings.subjects import subject_of

SUBJECTS = {
    ("tecom_rapid", "cellavision"): ["background", "cytoplasm", "nucleus"],
    ("drive", "stare", "chase"): ["background", "vessel"],
    ("day", "dusk"): CAMVID11.names,
    ("night", "fog", "rain", "snow"): CAMVID11.names,
    ("drive", "dusk"): ["ground", "vehicle", "person"],
    ("tecom_rapid", "stare"): ["ground", "vehicle", "person"],
    ("d", "s"): ["ground", "vehicle", "person"],
}
every_subject = pytest.mark.parametrize(("domains", "names"), SUBJECTS.items())


@every_subject
def test_names_of_domains_decide_what_is_drawn(domains, names):
    subject = subject_of(domains)
    assert [line.partition(",")[0] for line in subject.classes.splitlines()] == names
    assert list(subject.draw) == list(domains)


@every_subject
def test_every_class_is_drawn_in_every_domain(domains, names):
    subject = subject_of(domains)
    for draw in subject.draw.values():
        drawn = [draw(np.random.default_rng(seed)) for seed in range(5)]
        assert {image.shape for image, _ in drawn} == {(*subject.size, 3)}
        assert {mask.shape for _, mask in drawn} == {subject.size}
        assert set(range(len(names))) <= set(np.unique([mask for _, mask in drawn]).tolist())


@every_subject
def test_domains_look_different_and_seeds_draw_different_images(domains, names):
    images = [draw(np.random.default_rng(0))[0] for draw in subject_of(domains).draw.values()]
    assert all((images[0] != image).any() for image in images[1:])
    draw = subject_of(domains).draw[domains[0]]
    assert (draw(np.random.default_rng(1))[0] != images[0]).any()


def test_parts_of_one_dataset_show_the_same_things():
    parts = [subject_of([name], ["drive", "clinic"]) for name in ("drive", "clinic")]
    assert parts[0].classes == parts[1].classes == subject_of(["shop"]).classes
    assert subject_of(["drive"], ["drive", "stare"]).classes == "background\nvessel\n"
