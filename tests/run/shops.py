"""Runs of pictures from two shops, and what a table says about them."""

import csv

from domainnorm.data.datasets import Manifest
from tests.run.tiny import call

SHOPS = ("shop_a", "shop_b")
RECIPE = """
configs: [augment/two_views]
task: classification
backbone: {{name: test_resnet}}
norm: dsbn
data: {{name: manifest, root: {root}, source: [shop_a], target: [shop_b], image_size: 32,
       attributes: [{attributes}]}}
encoder: {encoder}
condition: mixture
method: joint
compare: [{methods}]
trainer: {{max_epochs: 1, threads: 1}}
evaluation: {{resamples: 20}}
"""


def write_shops(root, column, said):
    """Draw the pictures; ``column`` of the table holds what ``said(number, domain)`` gives."""
    Manifest.write_sample(root, domains=SHOPS)
    with (root / "manifest.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    for number, line in enumerate(lines):
        line[column] = said(number, line["domain"])
    with (root / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def write_recipe(root, attributes, encoder, methods="", more=""):
    """A recipe beside the pictures, ``more`` its last lines; its path."""
    file = root / "shops.yaml"
    asked = {"attributes": attributes, "encoder": encoder, "methods": methods}
    file.write_text(RECIPE.format(root=root, **asked) + more)
    return str(file)


def run_folder(asked, output, *words):
    """Folder of a run of the recipe."""
    assert call("run", asked, *words, "--output", str(output)) == 0
    return next(output.glob("*/*/metrics.json")).parent
