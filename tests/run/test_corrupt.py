"""A recipe whose target is a corrupted twin of its source."""

import numpy as np
import pytest

from domainnorm.recipe import load_recipe
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages

FOG = "data.corrupt={name: fog, severity: 5}"


@pytest.mark.parametrize("cached", [False, True])
def test_images_of_the_twin_are_corrupted_at_the_size_of_the_input(tmp_path, cached):
    given = [FOG, "data.target=[clean_corrupted]", "backbone.name=test_resnet"]
    if cached:
        given.append(f"data.cache={tmp_path}")
    recipe = load_recipe("quickstart", given)
    assert recipe.read_dataset.options["domains"] == ["clean"]
    parts = Parts(recipe)
    stage = next(s for s in plan_stages(recipe) if s.label == "source_only")
    data = parts.data(stage, parts.model(stage))
    assert data.domain_names == ["clean", "clean_corrupted"]
    loaders = dict(zip(data.test_domains, data.test_dataloader(), strict=True))
    clean, foggy = (
        {
            data.dataset.records[index].file: image
            for batch in loaders[name]
            for index, image in zip(batch["index"].tolist(), batch["image"].numpy(), strict=True)
        }
        for name in ("clean", "clean_corrupted")
    )
    assert clean.keys() == foggy.keys()
    assert all(foggy[name].shape == clean[name].shape for name in clean)
    assert all(np.abs(foggy[name] - clean[name]).mean() > 0.1 for name in clean)
    again = {name: next(iter(loader)) for name, loader in loaders.items()}
    assert np.array_equal(again["clean_corrupted"]["image"][0].numpy(), next(iter(foggy.values())))


def test_a_twin_may_be_the_source():
    recipe = load_recipe(
        "quickstart", [FOG, "data.source=[clean_corrupted]", "data.target=[textured]"]
    )
    assert recipe.read_dataset.options["domains"] == ["textured", "clean"]
    assert Parts(recipe).dataset.domain_names[-1] == "clean_corrupted"
