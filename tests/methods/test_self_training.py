import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm.backbones import drop_tokens
from domainnorm.errors import ConversionError, DomainNormError
from domainnorm.methods import Roles
from domainnorm.methods.frozen import FrozenStart, deepest, feature_distance
from domainnorm.methods.mixing import mask_patches
from domainnorm.methods.self_training import SelfTraining
from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import METHODS, ONE, changed, fit, make_model, rows_changed, source_model
from tests.reference import adaptation
from tests.reference.losses import cross_entropy, probabilities

FORMS = [name for name in METHODS.names() if issubclass(METHODS.load(name), SelfTraining)]
EVERYTHING = {"masked_weight": 1.0, "distance_weight": 0.1, "threshold": 0.0, "mix": "cut"}
SOURCE, TARGET = 0, 1
UNSURE = 0.1245  # of some target images the source model is surer than that, of others less
every_form = pytest.mark.parametrize("name", FORMS)


def masks(name, network="test_resnet", norm="dsbn", **options):
    """A method for masks in float64, a batch of two images of each role, and copies before it."""
    torch.manual_seed(0)
    decoder = "pyramid" if network == "test_vit" else "unet"
    model = create_segmentation_model(network, 3, norm, ONE.all, width=16, decoder=decoder)
    method = METHODS.load(name)(model, Segmentation(["a", "b", "c"]), ONE, **options).double()
    method.on_fit_start()
    batch = {
        "image": torch.randn(4, 3, 32, 32).double(),
        "strong": torch.randn(4, 3, 32, 32).double(),
        "target": torch.randint(-1, 3, (4, 32, 32)),
        "domain": torch.tensor([SOURCE, SOURCE, TARGET, TARGET]),
        "labelled": torch.tensor([True, True, False, False]),
    }
    return method, batch, copy.deepcopy(method.model), copy.deepcopy(method.deployed).eval()


def pixels(logits):
    return logits.detach().movedim(1, -1).flatten(0, -2).tolist()


def confidences(teacher, batch):
    told = pixels(teacher(batch["image"][2:], batch["domain"][2:]))
    return [max(probabilities(row)) for row in told]


def labels_of(teacher, batch):
    return teacher(batch["image"][2:], batch["domain"][2:]).argmax(1)


class Watched(METHODS.load("fixmatch")):
    """Compares each loss with the paper's, from a copy made before the step."""

    def losses(self, batch):
        student = copy.deepcopy(self.model)
        losses = super().losses(batch)
        target = {name: value[~batch["labelled"]] for name, value in batch.items()}
        weak = student(target["image"], target["domain"]).tolist()
        strong = student(target["strong"], target["domain"]).tolist()
        self.seen = [*getattr(self, "seen", []), [probabilities(row) for row in weak]]
        thresholds = [self.pseudo_labels.threshold] * 10
        if self.pseudo_labels.rule == "free":
            thresholds = adaptation.free_thresholds(self.seen, self.pseudo_labels.decay)[-1]
        expected = adaptation.fixmatch_loss(weak, strong, thresholds)
        if self.fairness_weight:
            self.kept = [*getattr(self, "kept", []), self._counted(weak, thresholds)]
            self.changed = [
                *getattr(self, "changed", []),
                [probabilities(row) for row in strong],
            ]
            fairness = adaptation.fairness_losses(
                self.seen, self.changed, self.kept, self.pseudo_labels.decay
            )
            expected += self.fairness_weight * fairness[-1]
        assert float(losses["target"].detach()) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        self.learned = max(getattr(self, "learned", 0.0), expected)
        return losses

    def _counted(self, weak, thresholds):
        p = [probabilities(row) for row in weak]
        return [float(max(row) >= thresholds[row.index(max(row))]) for row in p]


@pytest.mark.parametrize("fairness", [0.0, 0.3])
@pytest.mark.parametrize("rule", ["fixed", "free"])
def test_fixmatch_learns_its_own_sure_labels_over_all_images(rule, fairness):
    options = {"threshold": 0.15, "threshold_rule": rule, "label_decay": 0.5}
    options["fairness_weight"] = fairness
    done = fit(Watched, source_model(), ONE, batch_size=8, precision="64-true", **options)
    assert done.method.learned > 0
    assert done.method.teacher is None
    assert done.method.deployed is done.model


@pytest.mark.parametrize("name", ["dacs", "daformer", "mic"])
def test_mixed_pixels_weigh_by_where_they_are_from(name):
    method, batch, student, teacher = masks(name, threshold=0.34)
    mixed = []
    learned = method._mixed
    method._mixed = lambda *given: mixed.append(learned(*given)) or mixed[0]
    losses = method.losses(batch)
    [(_, label)], pasted = mixed[0].parts, mixed[0].pasted
    assert torch.equal(label[~pasted], labels_of(teacher, batch)[~pasted])
    assert torch.equal(label[pasted], batch["target"][:2][pasted])
    student.train()
    rows = pixels(student(mixed[0].image, batch["domain"][2:]))
    confident = confidences(teacher, batch)
    assert 0 < sum(c >= 0.34 for c in confident) < len(confident)
    given = label.flatten().tolist(), pasted.flatten().tolist(), confident
    expected = adaptation.dacs_loss(rows, *given, 0.34)
    assert float(losses["target"].detach()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("quality", ["sum", "share"])
def test_fairness_of_mixed_masks_is_of_labels_that_are_learned_but_the_sources(quality):
    options = {"threshold": 0.34, "mix": "class", "quality": quality, "target_weight": 0.5}
    found = []
    for fairness in (0.0, 0.3):
        options["fairness_weight"] = fairness
        method, batch, student, teacher = masks("mean_teacher", **options)
        mixed, learned = [], method._mixed
        method._mixed = lambda *given, kept=mixed, of=learned: kept.append(of(*given)) or kept[0]
        torch.manual_seed(1)
        found.append(float(method.losses(batch)["target"].detach()))
    [(_, label)], pasted = mixed[0].parts, mixed[0].pasted
    counted = ((label >= 0) & ~pasted).flatten().double().tolist()
    assert 0 < sum(counted) < len(counted)
    strong = pixels(student.train()(mixed[0].image, batch["domain"][2:]))
    weak = pixels(teacher(batch["image"][2:], batch["domain"][2:]))
    given = [[[probabilities(row) for row in rows]] for rows in (weak, strong)]
    expected = adaptation.fairness_losses(*given, [counted], method.pseudo_labels.decay)[0]
    assert found[1] - found[0] == pytest.approx(0.5 * 0.3 * expected, rel=1e-6)


def test_mic_learns_the_teachers_labels_on_masked_images():
    method, batch, student, teacher = masks("mic", threshold=0.34, mix="none", masked_weight=0.5)
    torch.manual_seed(3)
    losses = method.losses(batch)
    torch.manual_seed(3)
    image = mask_patches(batch["strong"][2:], 0.7)
    rows = pixels(student.train()(image, batch["domain"][2:]))
    label, confident = labels_of(teacher, batch).flatten().tolist(), confidences(teacher, batch)
    expected = adaptation.dacs_loss(rows, label, [False] * len(label), confident, 0.34)
    assert float(losses["masked"].detach()) == pytest.approx(0.5 * expected, rel=1e-9)


def test_mic_hides_tokens_of_a_transformer():
    method, batch, student, _ = masks("mic", "test_vit", "cln", mask_by="tokens", threshold=0.0)
    torch.manual_seed(3)
    with drop_tokens(student.train(), 0.7):
        rows = pixels(student(batch["strong"][2:], batch["domain"][2:]))
    target = {name: value[2:] for name, value in batch.items()}
    torch.manual_seed(3)
    assert pixels(method._masked(target)) == rows
    assert pixels(student(batch["strong"][2:], batch["domain"][2:])) != rows
    losses = method.losses(batch)
    assert losses["masked"].isfinite()
    assert losses["masked"] > 0


def test_a_network_without_tokens_hides_none():
    with pytest.raises(ConversionError, match="has no patch tokens"):
        masks("mic", mask_by="tokens")


@pytest.mark.parametrize("name", ["dacs", "fixmatch"])  # by a teacher, by the network itself
def test_labels_of_an_image_and_its_mirror_image_are_those_of_the_mean_prediction(name):
    method, batch, student, teacher = masks(name, label_flips=True)
    seen = []
    method.pseudo_labels.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.losses(batch)
    network = teacher if name == "dacs" else student.train()
    image, domain = batch["image"][2:], batch["domain"][2:]
    expected = network(image, domain).softmax(1)
    expected = (expected + network(image.flip(-1), domain).softmax(1).flip(-1)) / 2
    assert_close(seen[0].softmax(1), expected)


def test_daformer_stays_near_the_encoder_that_it_started_with():
    options = {"distance_weight": 0.5, "distance_classes": ["b"]}
    method, batch, student, _ = masks("daformer", **options)
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.mul_(1.1)
    moved = copy.deepcopy(method.model).train()
    batch["target"] = torch.ones(4, 32, 32).long()
    batch["target"][0] = 0
    losses = method.losses(batch)
    found = []
    for model in (moved, student.eval()):
        with model.condition(batch["image"][:2], batch["domain"][:2]) as network:
            found.append(pixels(network.encoder(batch["image"][:2])[-1]))
    cells = len(found[0]) // 2
    expected = adaptation.feature_distance(*found, [False] * cells + [True] * cells)
    assert expected > 0
    assert float(losses["distance"].detach()) == pytest.approx(0.5 * expected, rel=1e-9)


def test_distance_counts_cells_that_are_mostly_of_one_class():
    features = torch.rand(1, 5, 2, 2).double()
    label = torch.full((1, 8, 8), -1)
    label[0, :4, :3] = 1  # three quarters of the first cell
    label[0, :4, 4:6] = 2  # halves of the second
    label[0, :4, 6:] = 1
    start = torch.zeros_like(features)
    expected = adaptation.feature_distance(
        pixels(features), pixels(start), [True, False, False, False]
    )
    assert float(feature_distance(features, start, label, (1, 2))) == pytest.approx(expected)
    assert float(feature_distance(features, start, label, (0,))) == 0
    assert float(feature_distance(features, start)) == pytest.approx(
        adaptation.feature_distance(pixels(features), pixels(start), [True] * 4)
    )


def test_distance_by_directions():
    features, start = torch.randn(2, 3, 5, 2, 2).double().unbind()
    expected = adaptation.cosine_distance(pixels(2 * features), pixels(start))
    found = feature_distance(2 * features, start, rule="cosine")
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["daformer", "mean_teacher"])
def test_distance_of_all_is_that_of_changed_target_images_too(name):
    found = {}
    for chosen in ("source", "all"):
        options = {"distance_weight": 1.0, "distance_of": chosen, "mix": "none"}
        method, batch, _, _ = masks(name, **options, distance_rule="cosine")
        with torch.no_grad():
            for parameter in method.model.parameters():
                parameter.mul_(1.1)
        batch["strong"][~batch["labelled"]] += 3.0
        parts = []
        for images in (batch["image"][:2], batch["strong"][2:]):
            domain = batch["domain"][:2] if not parts else batch["domain"][2:]
            maps = []
            for model in (copy.deepcopy(method.model).train(), copy.deepcopy(method.frozen.model)):
                with model.condition(images, domain) as network:
                    encoder = getattr(network, "encoder", network)
                    maps.append(pixels(deepest(encoder(images))))
            parts.append(adaptation.cosine_distance(*maps))
        found[chosen] = float(method.losses(batch)["distance"].detach())
        expected = parts[0] if chosen == "source" else sum(parts) / 2
        assert found[chosen] == pytest.approx(expected, rel=1e-9)
    assert found["source"] != pytest.approx(found["all"], rel=1e-3)


def test_copy_of_the_start_is_frozen_and_the_encoder_alone():
    method, batch, _, _ = masks("daformer")
    before = copy.deepcopy(method.frozen.state_dict())
    method.train()
    sum(method.losses(batch).values()).backward()
    assert not any(module.training for module in method.frozen.model.modules())
    assert not any(parameter.requires_grad for parameter in method.frozen.parameters())
    assert_close(method.frozen.state_dict(), before, rtol=0, atol=0)
    encoder = sum(p.numel() for p in method.model.backbone.encoder.parameters())
    assert sum(p.numel() for p in method.frozen.parameters()) == encoder


def test_copy_of_the_start_is_taken_once():
    model = make_model()
    frozen = FrozenStart(model, masks=False)
    with torch.no_grad():
        model.get_classifier().bias.fill_(1.0)
    frozen.take(model)
    other = FrozenStart(make_model(), masks=False)
    other.load_state_dict(frozen.state_dict())
    other.take(make_model())
    assert bool((other.model.get_classifier().bias == 1).all())


def test_deepest_maps_are_found_beside_tokens():
    maps = [torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2)]
    for returned in (maps, tuple(maps), (maps, [torch.rand(1, 2)]), maps[1]):
        assert deepest(returned) is maps[1]


@every_form
def test_changed_images_move_no_running_moments(name):
    class White(METHODS.load(name)):
        def losses(self, batch):
            white = torch.full_like(batch["strong"], 50.0)
            return super().losses({**batch, "strong": white})

    states = []
    own = {"rows": "own", "guard": 1.0} if name == "default" else {}
    for kind in (name, White):
        done = fit(kind, source_model(), ONE, lr=0.0, **EVERYTHING, **own)
        states.append({n: t for n, t in done.method.state_dict().items() if "running" in n})
    moments = {n.removeprefix("model.") for n in states[0] if n.startswith("model.")}
    means = {n for n in moments if n.endswith("mean")}
    assert rows_changed(done.before, done.model, means) == {SOURCE, TARGET}
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key])


def compared(name, compare):
    """A form that has ``compare(student, batch, image)`` say what each step should come to.

    From a copy of the network before the step, and the images of its one batch: logits, and every
    buffer afterwards by name.
    """

    class Compared(METHODS.load(name)):
        def _mixed(self, *given):
            self.mixed = super()._mixed(*given)
            return self.mixed

        def losses(self, batch):
            student, labelled = copy.deepcopy(self.model), batch["labelled"]
            losses = super().losses(batch)
            image = batch["image"].clone()
            image[~labelled] = self.mixed.image
            logits, buffers = compare(student, batch, image)
            expected = self.task.loss(logits[labelled], batch["target"][labelled])
            assert_close(losses["supervised"], expected)
            for key, tensor in self.model.named_buffers():
                assert_close(tensor, buffers[key])
            self.steps = getattr(self, "steps", 0) + 1
            return losses

    return Compared


@every_form
def test_layers_without_rows_see_one_batch_and_others_each_domain(name):
    """Early norms have moments of each domain, late ones those of source and changed images."""

    def compare(student, batch, image):
        buffers, target = dict(student.named_buffers()), ~batch["labelled"]
        before = {key: tensor.clone() for key, tensor in buffers.items()}
        student(batch["image"][target], batch["domain"][target])  # its own moments follow this
        after = {key: tensor.clone() for key, tensor in buffers.items()}
        for key, tensor in buffers.items():
            if len(tensor) == 1:
                tensor.data.copy_(before[key])
        logits = student(image, batch["domain"])
        wanted = {key: tensor.clone() for key, tensor in buffers.items()}
        for key, tensor in wanted.items():
            if len(tensor) > 1:
                tensor[TARGET] = after[key][TARGET]
        return logits, wanted

    norm = {"early": "dsbn", "late": "bn"}
    own = {"rows": "own", "guard": 1.0} if name == "default" else {}
    options = {**EVERYTHING, "masked_weight": 0.0, **own}
    form, model = compared(name, compare), make_model(norm)
    done = fit(form, model, ONE, batch_size=8, precision="64-true", **options)
    assert done.method.steps > 2


@pytest.mark.parametrize(("norm", "rows"), [("dsbn", "one"), ("bn", "domain"), ("cin", "one")])
@every_form
def test_domains_of_the_same_rows_share_the_statistics_of_one_batch(name, norm, rows):
    """One batch of source and changed images, as in the papers' networks, and no other moments."""

    def compare(student, batch, image):
        return student(image, torch.zeros_like(batch["domain"])), student.state_dict()

    roles = Roles(ONE.source, ONE.target, rows)
    model = source_model(norm, roles)
    form = compared(name, compare)
    asked = {"certainty": 0.0} if name == "default" else {}
    done = fit(form, model, roles, batch_size=8, precision="64-true", **EVERYTHING, **asked)
    assert done.method.steps > 2


@every_form
def test_domains_that_share_moments_in_part_do_so_in_one_batch(name):
    """Of source and changed images, by which their running moments move, as where all is shared."""

    def compare(student, batch, image):
        return student(image, batch["domain"]), student.state_dict()

    own = {"rows": "own", "certainty": 0.0} if name == "default" else {}
    form, model = compared(name, compare), source_model("auto_bn", ONE)
    done = fit(form, model, ONE, batch_size=8, precision="64-true", **EVERYTHING, **own)
    assert done.method.steps > 2


@pytest.mark.parametrize("name", [name for name in FORMS if name != "fixmatch"])
def test_moments_of_the_teacher_follow(name):
    done = fit(name, source_model(), ONE, lr=0.0, decay=0.5)
    now, teacher = done.model.state_dict(), done.method.deployed.state_dict()
    for key in changed(done.before, done.model):
        if key.endswith("running_mean"):
            assert not torch.equal(teacher[key], done.before[key])
            assert (teacher[key] - now[key]).norm() < (done.before[key] - now[key]).norm()


@pytest.mark.parametrize("quality", ["mean", "sum", "share"])
@pytest.mark.parametrize("mix", ["none", "cut"])
def test_quality_of_classes_weighs_as_said(quality, mix):
    class Seen(METHODS.load("mean_teacher")):
        def _mixed(self, *given):
            self.mixed = super()._mixed(*given)
            return self.mixed

        def losses(self, batch):
            student, teacher = copy.deepcopy(self.model), copy.deepcopy(self.deployed)
            losses = super().losses(batch)
            domain = batch["domain"][~batch["labelled"]]
            told = teacher(batch["image"][~batch["labelled"]], domain).softmax(1).amax(1)
            share = float((told >= UNSURE).double().mean())
            rows = student(self.mixed.image, domain).tolist()
            self.shares = [*getattr(self, "shares", []), share]
            expected = 0.0
            for part, label in self.mixed.parts:
                kept = [given for given in label.tolist() if given >= 0]
                mean = cross_entropy(rows, label.tolist()) if kept else 0.0
                by = {"mean": 1.0, "sum": len(kept) / len(label), "share": share}
                expected += part * by[quality] * mean
            assert float(losses["target"].detach()) == pytest.approx(expected, rel=1e-9)
            return losses

    options = {
        "quality": quality,
        "mix": mix,
        "threshold": UNSURE,
        "lr": 0.0,
        "precision": "64-true",
    }
    done = fit(Seen, source_model(), ONE, batch_size=8, **options)
    assert 0 < sum(done.method.shares) < len(done.method.shares)


def test_masked_patches_are_zero_and_the_others_stay():
    image = torch.rand(40, 3, 20, 28) + 1
    masked = mask_patches(image, 0.7, 8)
    hidden = (masked == 0).all(1)
    assert torch.equal(masked[~hidden[:, None].expand_as(masked)],
                       image[~hidden[:, None].expand_as(image)])  # fmt: skip
    for top in range(0, 20, 8):
        for left in range(0, 28, 8):
            patch = hidden[:, top : top + 8, left : left + 8].flatten(1)
            assert bool((patch.all(1) | ~patch.any(1)).all())
    corners = hidden[:, ::8, ::8].float()
    assert float(corners.mean()) == pytest.approx(0.7, abs=0.07)
    assert len({tuple(row) for row in corners.flatten(1).tolist()}) > 20


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 1.0), (1.0, 0.0)])
def test_mask_ratio_reaches_both_ends(ratio, share):
    masked = mask_patches(torch.ones(2, 3, 16, 16), ratio)
    assert float(masked.mean()) == share


def test_masking_moves_the_moments_of_an_image():
    """Why masked images stay out of running moments."""
    image = 3 + 2 * torch.randn(200, 3, 64, 64)
    masked = mask_patches(image, 0.7)
    assert float(masked.mean()) == pytest.approx(0.9, abs=0.05)
    assert float(masked.std()) < 2


def test_unknown_class_of_the_distance_is_refused():
    with pytest.raises(DomainNormError, match=r"method.distance_classes: .*'car'"):
        masks("daformer", distance_classes=["car"])


def test_nothing_is_mixed_for_classes_unless_asked_for():
    assert METHODS.load("dacs")(make_model(), _classes(), ONE).mix == "none"
    with pytest.raises(DomainNormError, match=r"method.mix: 'class' mixes masks"):
        METHODS.load("dacs")(make_model(), _classes(), ONE, mix="class")


def _classes():
    return fit("source_only").method.task


def test_defaults_are_those_of_the_papers():
    wanted = {
        "fixmatch": (None, 0.95, "sum"),
        "dacs": (0.99, 0.968, "share"),
        "daformer": (0.999, 0.968, "share"),
        "mic": (0.999, 0.968, "share"),
        "mean_teacher": (0.99, 0.9, "mean"),
    }
    for name, expected in wanted.items():
        keys = METHODS.entry(name).parameters
        found = tuple(keys[key].default for key in ("decay", "threshold", "quality"))
        assert found == expected
    assert METHODS.entry("mic").parameters["mask_ratio"].default == 0.7
    assert METHODS.entry("daformer").parameters["distance_weight"].default == 0.005


def test_the_prior_of_the_start_is_what_the_source_model_predicts_of_the_target():
    start = source_model()
    data = fit("mean_teacher", source_model(), lr=0.0).data
    found = [
        data.evaluation_pipeline(data.dataset.image(index), 0)
        for index, record in enumerate(data.dataset.records)
        if record.domain == ONE.target[0] and record.split == "train"
    ]
    expected = start.eval()(torch.stack(found), ONE.target[0]).softmax(1).mean(0).detach()
    done = fit("mean_teacher", source_model(), prior="start", threshold=0.0)
    assert_close(done.method.pseudo_labels.anchored, expected)
    with pytest.raises(DomainNormError, match=r"method\.prior: 'start'"):
        fit("fixmatch", prior="start")


@pytest.mark.parametrize(
    "options", [{"threshold_rule": "free"}, {"prior": "estimated"}, {"prior": "start"}]
)
def test_averages_stay_in_float32_under_bfloat16(options):
    done = fit("mean_teacher", source_model(), precision="bf16-mixed", **options)
    for name, tensor in done.method.pseudo_labels.named_buffers():
        assert tensor.dtype in (torch.float32, torch.int64), name
