import pytest
import torch
from torch import nn

from domainnorm.errors import DataError, DomainNormError
from domainnorm.tasks import Generation, create_generator, generate
from domainnorm.tasks.generator import seeded_noise, velocity
from tests.reference.generation import midpoint

DOMAINS = "a", "b"
LABEL = torch.tensor([2, 0, -1, 1])
DOMAIN = torch.tensor([0, 1, 1, 0])


def generator(norm="cgn", **options):
    """A generator that has learned something: no row and no kernel is at its start."""
    torch.manual_seed(0)
    given = {"width": 8, "blocks": 1, **options}
    model = create_generator("test_resnet", 3, norm, DOMAINS, **given)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def noise(count=4, side=16, channels=3):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def one_by_one(model):
    @torch.no_grad()
    def found(image, time, label, domain):
        times, labels = torch.tensor([time]), torch.tensor([label])
        return velocity(model, image[None], times, labels, domain=torch.tensor([domain]))[0]

    return found


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_images_are_those_of_the_formula(guidance):
    model = generator()
    made = generate(model, noise(), LABEL, steps=3, guidance=guidance, domain=DOMAIN)
    for number, one in enumerate(noise()):
        label, domain = int(LABEL[number]), int(DOMAIN[number])
        expected = midpoint(one_by_one(model), one, label, domain, 3, guidance)
        torch.testing.assert_close(made[number], expected, atol=1e-4, rtol=1e-4)


def test_untrained_network_leaves_the_noise():
    model = create_generator("test_resnet", 3, "cgn", DOMAINS, width=8).eval()
    made = generate(model, noise(), LABEL, steps=2, domain=DOMAIN)
    torch.testing.assert_close(made, (noise() / 2 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("norm", ["cgn", "cin", "dsbn"])
def test_domain_comes_through_the_norms(norm):
    model, time = generator(norm), torch.full((4,), 0.5)
    with torch.no_grad():
        one, other = (velocity(model, noise(), time, LABEL, domain=name) for name in DOMAINS)
    assert not torch.allclose(one, other, atol=1e-3)


def test_mixture_of_domains_lies_between_them():
    model, weights = generator(), torch.tensor([[0.5, 0.5]] * 4)
    made = generate(model, noise(), LABEL, steps=2, weights=weights)
    alone = [generate(model, noise(), LABEL, steps=2, domain=name) for name in DOMAINS]
    assert all(not torch.allclose(made, one, atol=1e-3) for one in alone)


@pytest.mark.parametrize("other", [0, -1])
def test_class_matters(other):
    model, time = generator(), torch.full((4,), 0.5)
    labels = torch.full((4,), 2), torch.full((4,), other)
    with torch.no_grad():
        one, two = (velocity(model, noise(), time, label, domain="a") for label in labels)
    assert not torch.allclose(one, two, atol=1e-3)


def test_time_matters():
    model = generator()
    with torch.no_grad():
        one, two = (
            velocity(model, noise(), torch.full((4,), time), LABEL, domain="a")
            for time in (0.2, 0.8)
        )
    assert not torch.allclose(one, two, atol=1e-3)


def test_guidance_leaves_images_of_no_class_as_they_are():
    model, none = generator(), torch.full((4,), -1)
    one, two = (
        generate(model, noise(), none, steps=2, guidance=guidance, domain="a")
        for guidance in (1.0, 4.0)
    )
    torch.testing.assert_close(one, two)


def test_noise_of_a_seed_is_the_same_in_any_batch():
    together, alone = seeded_noise([3, 7], (3, 8, 8)), seeded_noise([7], (3, 8, 8))
    assert together[1].equal(alone[0])
    assert not together[0].equal(together[1])


def test_grey_images():
    model = generator(in_chans=1)
    made = generate(model, noise(channels=1), LABEL, steps=1, domain=DOMAIN)
    assert made.shape == (4, 1, 16, 16)


@pytest.mark.parametrize("size", [(30, 32), (32, 4)])
def test_sizes_that_cannot_be_halved_twice_are_refused(size):
    with pytest.raises(DataError, match="expected multiples of 4, 8 or more"):
        Generation(list("abc")).check_input(generator(), size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20}, "task.width: 20, expected a multiple of 8"),
        ({"guidance": 0.5}, "task.guidance: 0.5, expected 1 or more"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(DomainNormError, match=message):
        Generation(list("abc"), **options)


def test_random_network_is_the_same_for_every_task():
    model, shares = generator(), torch.rand(2, 3, 32, 32)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        task = Generation(list("abc"))
        task.look_through("test_resnet", pretrained=False, weights=None)
        found.append(task.describe(model, shares))
    assert found[0].equal(found[1])
    assert not list(task.parameters())
