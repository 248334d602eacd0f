"""What a recipe with one mistake is answered: key, what came, what was expected, nearest name."""

from __future__ import annotations

import re

import pytest

from domainnorm.errors import RecipeError, nearest
from domainnorm.recipe import DataConfig, EvaluationConfig, TrainerConfig, load_recipe
from domainnorm.recipe.load import KEYS
from domainnorm.recipe.meanings import MEANINGS
from domainnorm.recipe.sections import fixed_parameters
from domainnorm.registry import DATASETS, METHODS

DATA = "name: scans, source: [clean]"
FOLDER = "name: folder, root: wbc, source: [a]"
MASKS = "name: folder_masks, root: wbc, source: [a]"
FINDINGS = "name: manifest_findings, root: wbc, findings: [f], source: [a]"
CASES = [
    ({"methd": "tent"}, "methd: unknown key 'methd': did you mean 'method'?"),
    ({"task": None}, "task: got null, expected a task name, or a mapping with 'name'; known: "),
    ({"task": "clasification"}, "unknown task 'clasification': did you mean 'classification'?"),
    ({"task": "[classification]"}, "task: got ['classification'], expected a task name"),
    ({"backbone": None}, "backbone.name: missing, expected a text"),
    ({"backbone": "rsnet50"}, "backbone.name: unknown network of timm 'rsnet50': did you mean"),
    ({"backbone": "[resnet50]"}, "backbone: got ['resnet50'], expected a mapping with name, pret"),
    ({"backbone": "{nam: r}"}, "backbone.nam: unknown key 'nam': did you mean 'name'?"),
    ({"backbone": "{name: a/b}"}, "backbone.name: got 'a/b', expected an architecture of timm"),
    (
        {"backbone": "{name: r, pretrained: 1}"},
        "backbone.pretrained: got 1, expected true or false",
    ),
    (
        {"backbone": "{name: r, weights: w.pickle}"},
        "backbone.weights: got 'w.pickle', expected a file that ends in .safetensors, .pth, .pt",
    ),
    (
        {"backbone": "{name: r, weights: w.pth, pretrained: false}"},
        "backbone.weights: is given although backbone.pretrained is false",
    ),
    (
        {"backbone": "{name: r, options: {num_classes: 3}}"},
        "backbone.options.num_classes: is set by the run; leave it out",
    ),
    (
        {"backbone": "{name: r, options: {drop_rate: {a: 1}}}"},
        "backbone.options.drop_rate: got {'a': 1}, expected a plain value or a list of them",
    ),
    (
        {"backbone": "{name: r, options: {in_chans: 4}}"},
        "backbone.options.in_chans: got 4, expected 3, or 1: images are read in colour, a "
        "network of one channel gets them grey",
    ),
    ({"data": None}, "data: got null, expected a mapping with 'name', 'source', 'target'"),
    ({"data": "{source: [a]}"}, "data.name: missing, expected one of "),
    ({"data": "{name: foldr}"}, "data.name: unknown dataset 'foldr': did you mean 'folder'?"),
    ({"data": "{name: folder, source: [a]}"}, "data.root: missing, expected a text"),
    ({"data": f"{{{FOLDER}, rot: a}}"}, "data.rot: unknown key 'rot': did you mean 'root'?"),
    (
        {"data": f"{{{FOLDER}, val_fraction: some}}"},
        "data.val_fraction: got 'some', expected a number",
    ),
    (
        {"data": f"{{{DATA}, stream_run: 5}}"},
        "data.stream_run: is for the orders 'by_class' and 'returning', got 'shuffled'",
    ),
    (
        {"data": f"{{{DATA}, corrupt: {{name: fogg, severity: 2}}}}"},
        "data.corrupt.name: unknown corruption 'fogg': did you mean 'fog'?",
    ),
    (
        {"data": f"{{{DATA}, corrupt: {{name: fog, severity: 6}}}}"},
        "data.corrupt.severity: got 6, expected a whole number from 1 to 5",
    ),
    (
        {"data": f"{{{DATA}, corrupt: {{name: fog, strength: 1}}}}"},
        "data.corrupt: unknown key 'strength': known: name, severity",
    ),
    (
        {"data": f"{{{DATA}, corrupt: {{name: fog, severity: 5}}}}"},
        "data.corrupt: is given, but no source or target is a corrupted domain, such as "
        "'clean_corrupted'",
    ),
    ({"data": "{name: scans}"}, "data.source: no domains given, expected at least one"),
    (
        {"data": "{name: scans, source: clean}"},
        "data.source: got 'clean', expected a list of texts",
    ),
    ({"data": "{name: scans, source: [true]}"}, "data.source: got [True], expected a list of"),
    (
        {"data": f"{{{DATA}, target: [clean]}}"},
        "data.target: 'clean' is also a source, expected other domains",
    ),
    ({"data": "{name: scans, source: [a, a]}"}, "data.source: names 'a' 2 times"),
    (
        {"data": "{name: scans, source: [../a]}"},
        "data.source: got '../a', expected a printable domain name without slashes",
    ),
    (
        {"data": '{name: scans, source: ["a\\nb"]}'},
        "expected a printable domain name without slashes",
    ),
    (
        {"data": f"{{{DATA}, sampling: rair}}"},
        "data.sampling: got 'rair', expected 'uniform' or 'balanced' or 'rare'; did you mean 'rar",
    ),
    (
        {"data": f"{{{DATA}, sampling_temperature: 0}}"},
        "data.sampling_temperature: got 0.0, expected more than 0",
    ),
    ({"data": f"{{{DATA}, batch_size: 0}}"}, "data.batch_size: got 0, expected at least 1"),
    (
        {"data": f"{{{DATA}, num_workers: true}}"},
        "data.num_workers: got true, expected a whole number",
    ),
    ({"data": f"{{{DATA}, image_size: -3}}"}, "data.image_size: got -3, expected 1 to 65536"),
    (
        {"data": f"{{{DATA}, image_size: [32, 32, 3]}}"},
        "data.image_size: got [32, 32, 3], expected 1 to 65536 pixels or [height, width]",
    ),
    (
        {"data": f"{{{DATA}, transfers: [{{source: [a]}}]}}"},
        "data.transfers: is given beside data.source or data.target",
    ),
    (
        {"data": "{name: scans, transfers: [{sorce: [a]}]}"},
        "data.transfers[0].sorce: unknown key 'sorce': did you mean 'source'?",
    ),
    (
        {"data": "{name: scans, transfers: [{source: [a], target: [a]}]}"},
        "data.transfers[0].target: 'a' is also a source",
    ),
    ({"augment": "[HorizontalFlip]"}, "augment: got ['HorizontalFlip'], expected a mapping such"),
    (
        {"augment": "{clear: [HorizontalFlip]}"},
        "augment.clear: unknown domain 'clear': did you mean 'clean'? known: default, source, ta",
    ),
    ({"augment": "{default: [HorizontalFlp]}"}, "did you mean 'HorizontalFlip'?"),
    ({"augment": "{default: [{name: Rotate, limits: 3}]}"}, "augment.default[0].limits: "),
    ({"norm": "cinn"}, "norm: unknown norm 'cinn': did you mean 'cin'?"),
    ({"perturb": "mixstile"}, "perturb: unknown perturbation 'mixstile': did you mean 'mixstyle'?"),
    ({"perturb": "3"}, "perturb: got 3, expected a perturbation name, or a mapping with 'name'"),
    ({"perturb": "{name: dsu, factr: 1}"}, "perturb.factr: unknown key 'factr': did you mean 'fa"),
    ({"perturb": "[dsu, {name: dsu, p: x}]"}, "perturb[1].p: got 'x', expected a number"),
    (
        {"perturb": "{name: efdmix, mode: cross}"},
        "perturb.mode: got 'cross', expected 'random' or 'cross_domain'; did you mean 'cross_dom",
    ),
    ({"perturb": "{name: dsu, where: 3}"}, "perturb.where: got 3, expected a text or a list of"),
    ({"perturb": "{name: dsu, where: []}"}, "perturb.where: got an empty list, expected stem, st"),
    ({"method": None}, "augment.target: method 'default' needs a weak and a strong view of"),
    ({"method": "null"}, "method: got null, expected a method name, or a mapping with 'name'"),
    ({"method": "tnet"}, "method: unknown method 'tnet': did you mean 'tent'?"),
    ({"method": "{name: adabn, lrr: 1}"}, "method.lrr: unknown key 'lrr'"),
    ({"compare": "tent"}, "compare: got 'tent', expected a list of methods"),
    ({"compare": "[tnet]"}, "compare[0]: unknown method 'tnet': did you mean 'tent'?"),
    (
        {"compare": "[{name: source_only, lr: 0.5}]"},
        "compare[0]: 'source_only' is already a method of this recipe",
    ),
    (
        {"compare": "[adabn, {name: adabn, share: layers}]"},
        "compare[1]: 'adabn' is already a method of this recipe; leave it out, or rename "
        "it: {name: adabn, as: adabn_2}",
    ),
    ({"compare": "[{name: adabn, as: B}, {name: tent, as: b}]"}, "compare[1]: 'b' is already a "),
    ({"method": "{name: tent, as: oracle}"}, "method.as: got 'oracle', the name of another method"),
    ({"method": "{name: tent, as: a/b}"}, "method.as: got 'a/b', expected letters, digits and _ ."),
    ({"method": "{name: tent, as: [a]}"}, "method.as: got ['a'], expected a text or null"),
    ({"method": "{name: tent, sa: b}"}, "method.sa: unknown key 'sa': did you mean 'as'?"),
    ({"method": "{name: dann, domain_weight: -1}"}, "method.domain_weight: got -1.0, expected 0 "),
    ({"method": "{name: eata, margin: 0}"}, "method.margin: got 0.0, expected a share above 0"),
    ({"method": "{name: alpha_bn, prior: -1}"}, "method.prior: got -1.0, expected 0 or more"),
    (
        {"method": "shot", "task": "{name: segmentation}", "data": f"{{{MASKS}, target: [b]}}"},
        "method: 'shot' is for one class per image, but this task has masks",
    ),
    *[
        (
            {"compare": f"[{name}]", "task": "multilabel", "data": f"{{{FINDINGS}, target: [b]}}"},
            f"compare[0]: '{name}' is for one class per image or masks, but this task has several",
        )
        for name in ("mcc", "mean_teacher", "eata", "tent", "cdan", "mcd", "bnm", "infomax")
    ],
    (
        {"method": "{name: mean_teacher, mix: class}"},
        "method.mix: got 'class', which is for masks, but task 'classification' has none",
    ),
    (
        {"method": "{name: mic, mask_ratio: 2}"},
        "method.mask_ratio: got 2.0, expected a probability",
    ),
    ({"method": "{name: mic, mask_size: 0}"}, "method.mask_size: got 0, expected 1 or more"),
    (
        {"method": "{name: fixmatch, threshold_rule: soft}"},
        "method.threshold_rule: got 'soft', expected 'fixed' or 'free'",
    ),
    (
        {"method": "{name: fixmatch, label_decay: 1}"},
        "method.label_decay: got 1.0, expected a share in [0, 1)",
    ),
    (
        {"method": "mean_teacher"},
        "augment.target: method 'mean_teacher' needs a weak and a strong view of the images of",
    ),
    (
        {"method": "restyle"},
        "augment.source: method 'restyle' needs a step that restyles images of 'clean':",
    ),
    (
        {"method": "restyle", "augment": "{source: {weak: [], strong: [FDA]}}"},
        "augment.source: method 'restyle' needs a step that restyles images of 'clean':",
    ),
    ({"method": "restyle", "augment": "{source: [{p: 1}]}"}, "augment.source[0]"),
    ({"method": "restyle", "augment": "{source: {weak: 3}}"}, "augment.source.weak"),
    (
        {"method": "eata", "trainer": "{devices: 2}"},
        "trainer.devices: got 2, but devices cannot share the one stream of images of 'eata'",
    ),
    (
        {"method": "adabn", "data": f"{{{DATA}}}"},
        "method: 'adabn' needs images of a target domain, but data.target is empty",
    ),
    ({"trainer": "{max_epochs: ten}"}, "trainer.max_epochs: got 'ten', expected a whole number"),
    ({"trainer": "{max_epoch: 1}"}, "unknown key 'max_epoch': did you mean 'max_epochs'?"),
    ({"trainer": "{epochs: 3}"}, "trainer.epochs: unknown key 'epochs': did you mean 'max_epochs'"),
    ({"trainer": "{gradient_clip_val: 1}"}, "did you mean 'gradient_clip'? known: max_epochs, "),
    ({"trainer": "{accumulate_grad_batches: 1}"}, "did you mean 'accumulate'?"),
    ({"trainer": "{Limit-Train-Batches: 1}"}, "did you mean 'limit_batches'?"),
    ({"trainer": "{learning_rate: 1}"}, "did you mean 'method.lr'?"),
    ({"method": "{name: tent, learning_rate: 1}"}, "did you mean 'lr'?"),
    ({"compare": "[{name: tent, learning_rate: 1}]"}, "compare[0].learning_rate: unknown key 'le"),
    ({"lr": "0.1"}, "lr: unknown key 'lr': did you mean 'method.lr'?"),
    ({"model": "resnet50"}, "model: unknown key 'model': did you mean 'backbone'?"),
    ({"dataset": "scans"}, "dataset: unknown key 'dataset': did you mean 'data'?"),
    (
        {"data": f"{{{DATA}, dataset: a}}"},
        "data.dataset: unknown key 'dataset': did you mean 'name",
    ),
    ({"data": f"{{{DATA}, bs: 8}}"}, "data.bs: unknown key 'bs': did you mean 'batch_size'?"),
    ({"bs": "8"}, "bs: unknown key 'bs': did you mean 'data.batch_size'?"),
    ({"num_classes": "8"}, "unknown key 'num_classes': the dataset says which classes there are;"),
    ({"backbone": "{name: r, drop_rate: 1}"}, "did you mean 'backbone.options.drop_rate'?"),
    ({"trainer": "{devices: all}"}, "trainer.devices: got 'all', expected 'auto' or a whole num"),
    ({"trainer": "{precision: 32-tru}"}, "; did you mean '32-true'?"),
    ({"trainer": "{gradient_clip: 0}"}, "trainer.gradient_clip: got 0.0, expected more than 0"),
    ({"trainer": "{gradient_clip: .inf}"}, "trainer.gradient_clip: got inf, expected a number"),
    ({"evaluation": "{confidence: 1}"}, "evaluation.confidence: got 1.0, expected less than 1"),
    (
        {"evaluation": "{selection: lst}"},
        "evaluation.selection: unknown value 'lst': did you mean 'last'? known: last, validation,",
    ),
    ({"evaluation": "{selection: source_accuracy}"}, "unknown value 'source_accuracy': "),
    ({"evaluation": "{selection: dev}"}, "unknown value 'dev': "),
    (
        {"evaluation": "{selection: infomax}", "data": f"{{{DATA}}}"},
        "evaluation.selection: 'infomax' needs images of a target domain, but data.target is empty",
    ),
    (
        {
            "evaluation": "{selection: class_ami}",
            "task": "segmentation",
            "data": f"{{{MASKS}, target: [b]}}",
        },
        "evaluation.selection: 'class_ami' is for one class per image, but this task has masks",
    ),
    (
        {"evaluation": "{selection: snd, score_images: 0}"},
        "evaluation.score_images: got 0, but selection 'snd' needs images",
    ),
    ({"checkpoint": "[a]"}, "- checkpoint: got ['a'], expected a text or null"),
    ({"seed": "x"}, "seed: got 'x', expected a whole number or a list of them"),
    ({"seed": "true"}, "seed: got true, expected a whole number or a list of them"),
    ({"seed": "[1, 1]"}, "seed: got [1, 1], expected each seed once"),
    ({"seed": "[]"}, "seed: got [], expected a whole number or a list of them"),
    ({"seed": "-1"}, "seed: got -1, expected numbers from 0 to 4294967295"),
    ({"configs": "trainer/cpu"}, "configs: got 'trainer/cpu', expected a list of part names"),
    ({"configs": "[../secret]"}, "configs[0]: got '../secret', expected a part name such as"),
    ({"configs": "[trainer/cpuu]"}, "configs[0]: unknown part 'trainer/cpuu': did you mean 'trai"),
    ({"checkpoint": "${data.nme}"}, "checkpoint: Interpolation key 'data.nme' not found"),
    ({"checkpoint": "???"}, "checkpoint: Missing mandatory value: checkpoint"),
    ({"data": "{1: a, name: scans, source: [a]}"}, "data.1: got the key 1, keys are text"),
    ({"method": "{name: tent, lr: -1}"}, "method.lr: got -1.0, expected 0 or more"),
    ({"method": "{name: tent, lr: .nan}"}, "method.lr: got nan, expected a number"),
    ({"method": "{name: tent, epochs: 0}"}, "method.epochs: got 0, expected 1 or more"),
    ({"encoder": "{name: style, embedding: 0}"}, "encoder.embedding: got 0, expected 1 or more"),
    ({"data": f"{{{FOLDER}, val_fraction: 1}}"}, "data.val_fraction: got 1.0, expected a number"),
    (
        {"data": f"{{{FOLDER}, image_size: [64, 96], crop_size: 80}}"},
        "data.crop_size: got 80, expected no more than data.image_size, [64, 96]",
    ),
    (
        {"task": "{name: segmentation}", "data": f"{{{MASKS}, sampling: balanced}}"},
        "data.sampling: 'balanced' needs one class per image, but there are masks; take 'rare'",
    ),
    (
        {"task": "{name: segmentation, overlap: 1}", "data": f"{{{MASKS}}}"},
        "task.overlap: got 1.0, expected a share in [0, 1)",
    ),
    (
        {"task": "{name: segmentation, ce_weight: 0}", "data": f"{{{MASKS}}}"},
        "task.ce_weight: got 0, as dice_weight and focal_weight, expected one of the three",
    ),
    (
        {"task": "{name: segmentation, decoder: fpn, width: 20}", "data": f"{{{MASKS}}}"},
        "task.width: got 20, decoder 'fpn' takes multiples of 32",
    ),
    ({"task": "a\n  b: c"}, "line 2, column 4: mapping values are not allowed here"),
    ({"task": "a\ntask: b"}, "line 2, column 1: found duplicate key task"),
]


@pytest.mark.parametrize(("sections", "fragment"), CASES)
def test_a_mistake_is_answered_with_key_and_expectation(write, sections, fragment):
    with pytest.raises(RecipeError, match=re.escape(fragment)):
        load_recipe(write(**sections))


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("seed", "override 'seed': expected key=value, such as method.lr=1e-3"),
        ("seed=[", "override 'seed=[': cannot read '[' as a YAML value"),
        ("data.source.0=a", "data.source: cannot set 'data.source.0' inside ['clean']"),
        ("trainer.epochs=1", "trainer.epochs: unknown key 'epochs': did you mean 'max_epochs'?"),
    ],
)
def test_a_wrong_override_is_answered_with_its_key(write, override, fragment):
    with pytest.raises(RecipeError, match=re.escape(fragment)):
        load_recipe(write(), [override])


def test_all_problems_are_reported_at_once(write):
    path = write(task="x", norm="y", method="z", seed="a", trainer="{max_epochs: 0, threads: b}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["bad"])
    keys = [problem.partition(":")[0] for problem in caught.value.problems]
    expected = ["override 'bad'", "task", "norm", "method", "seed"]
    assert sorted(keys) == sorted([*expected, "trainer.max_epochs", "trainer.threads"])


def test_one_mistake_is_one_problem(write):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(data="{name: scans, source: 3}"))
    assert len(caught.value.problems) == 1


def test_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match="unknown recipe 'quickstrt': did you mean 'quickstart'"):
        load_recipe("quickstrt")


def test_path_that_is_not_there_is_answered_with_the_nearest_file(tmp_path):
    (tmp_path / "streets.yaml").touch()
    near = tmp_path / "streets.yml"
    with pytest.raises(
        RecipeError, match=r"no such file \(did you mean '.*/streets.yaml'\?\), and"
    ):
        load_recipe(str(near))
    with pytest.raises(RecipeError, match="no such file, and unknown recipe"):
        load_recipe(str(tmp_path / "none/streets.yml"))


@pytest.mark.parametrize(
    ("text", "what"), [("", "nothing"), ("- 1", "a list"), ("# a comment\n", "nothing")]
)
def test_a_file_without_mapping_is_refused(tmp_path, text, what):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=f"got {what}, expected a mapping"):
        load_recipe(str(path))


def test_shipped_name_without_its_folder_is_found():
    with pytest.raises(RecipeError, match="unknown recipe 'wbc': did you mean 'medical/wbc'"):
        load_recipe("wbc")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_text_in_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "own.yaml").write_bytes("# Größe\ntask: classification\n".encode(encoding))
    with pytest.raises(RecipeError, match=r"not UTF-8 text \(.* at byte \d+\); save it as UTF-8"):
        load_recipe(str(tmp_path / "own.yaml"))


@pytest.mark.slow
def test_messages_end_whatever_is_wrong(write):
    long, many = "x" * 100_000, ", ".join(["x"] * 5000)
    with pytest.raises(RecipeError, match=r"and 49.. more") as caught:
        load_recipe(write(norm=long, augment=f"{{default: [{many}]}}"))
    assert len(str(caught.value)) < 20_000
    assert len(caught.value.problems) > 5000


def test_names_that_no_file_can_have_are_unknown(write):
    long = "x" * 300
    with pytest.raises(RecipeError, match="unknown recipe 'xxx"):
        load_recipe(f"{long}.yaml")
    with pytest.raises(RecipeError, match=r"configs\[0\]: unknown part 'xxx"):
        load_recipe(write(configs=f"[{long}]"))


def test_nearest_name_does_not_look_at_capitals():
    assert nearest("ibn_A", ["ibn_b", "ibn_a"]) == "ibn_a"
    assert nearest("DSBN", ["bn", "dsbn", "CIN"]) == "dsbn"
    assert nearest("Cin", ["in", "CIN"]) == "CIN"


@pytest.mark.parametrize("meant", dict.fromkeys(MEANINGS.values()))
def test_what_is_meant_by_another_name_is_a_key(meant):
    section, _, name = meant.rpartition(".")
    keys = {
        "": KEYS,
        "backbone.options": (name,),
        "method": METHODS.entry("source_only").parameters,
    }
    fixed = {"data": DataConfig, "trainer": TrainerConfig, "evaluation": EvaluationConfig}
    keys |= {key: fixed_parameters(schema) for key, schema in fixed.items()}
    keys["data"] |= DATASETS.entry("folder").parameters
    assert name in keys[section]


def test_method_without_a_rate_is_not_told_of_one(write):
    with pytest.raises(RecipeError, match="unknown key 'learning_rate': known: "):
        load_recipe(write(method="{name: adabn, learning_rate: 1}"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *[("bf16", "bf16-mixed"), ("16", "16-mixed"), ("'16'", "16-mixed"), ("32", "32-true")],
        *[("64", "64-true"), ("bf16-true", "bf16-true")],
    ],
)
def test_precision_has_short_names(write, given, meant):
    assert load_recipe(write(trainer=f"{{precision: {given}}}")).trainer.precision == meant
    assert load_recipe(write(), [f"trainer.precision={given}"]).trainer.precision == meant
