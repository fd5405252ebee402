"""The judge of the embedded world: how a model is sampled, and that a merged LoRA is guided by its base as a loaded one is."""

import numpy as np
import pytest
import torch

from diffusers_tpo.evaluation.shapes import judge_images, judge_together, load_model
from diffusers_tpo.guidance import guide_with_reference
from diffusers_tpo.models import loading
from diffusers_tpo.models.adapters import add_lora, save_lora
from diffusers_tpo.shapes import world
from diffusers_tpo.shapes.world import PIPELINE, make_scenes


SCENES = make_scenes(2, 0, held_out=True)


@pytest.fixture(scope="module")
def base():
    return load_model()


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """The folder of a LoRA that changes what the shipped pipeline draws."""
    folder = tmp_path_factory.mktemp("lora")
    pipe = loading.load_pipeline(str(PIPELINE))
    add_lora(pipe.unet, ("to_q", "to_v"), rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    save_lora(type(pipe), pipe.unet, "unet", folder)
    return folder


@pytest.fixture(scope="module")
def merged(lora):
    return load_model(lora)


@pytest.fixture
def drawn(monkeypatch):
    """The images that are verified, in order."""
    seen = []
    verify = world.verify_images

    def keep(images, scenes):
        seen.append(images)
        return verify(images, scenes)

    monkeypatch.setattr("diffusers_tpo.evaluation.shapes.verify_images", keep)
    return seen


def judged(pipe, scales=(1.0, 4.0), reference=None):
    return judge_images(pipe, SCENES, scales, seed=0, steps=2, progress=False, reference=reference)


def test_a_merged_lora_is_guided_by_the_base_as_a_loaded_one_is(base, lora, merged, drawn):
    loaded = loading.load_model(str(lora), base=str(PIPELINE)).pipe
    loaded.scheduler = base.scheduler
    with guide_with_reference(loaded):
        judged(loaded, (4.0,))
    judged(merged, (4.0,), reference=base.unet)
    judged(merged, (4.0,))
    expected, found, plain = (images.astype(int) for images in drawn)
    assert np.abs(found - expected).max() <= 2  # of 255: merging rounds the weights
    assert np.abs(plain - expected).max() > 20


def test_without_guidance_the_reference_changes_nothing(base, merged, drawn):
    facts = judged(merged, (1.0,))
    assert facts.keys() == judged(merged, (1.0,), reference=base.unet).keys()
    np.testing.assert_array_equal(*drawn)


def test_the_base_is_its_own_reference(base, drawn):
    judged(base)
    judged(base, reference=base.unet)
    for images, expected in zip(drawn[2:], drawn[:2], strict=True):
        np.testing.assert_array_equal(images, expected)


def test_models_that_are_judged_together_share_the_reference(base, merged):
    pipes = {"before": base, "after": merged}
    options = {"steps": 2, "strata": 1, "progress": False, "reference": base.unet}
    together = judge_together(pipes, SCENES, (4.0,), 0, **options)
    assert together.keys() == pipes.keys()
    assert {"implicit/score", "guidance/built_in", "guidance/built_in/content"} <= together["after"].keys()
    assert not together["before"]["guidance/built_in"].any() and together["after"]["guidance/built_in"].all()
    alone = judged(pipes["after"], (4.0,), reference=base.unet)
    for name, values in alone.items():
        np.testing.assert_array_equal(together["after"][name], values)
