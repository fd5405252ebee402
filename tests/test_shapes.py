"""The embedded world: its renderer and its verifier check one another."""

import random

import numpy as np
import pytest

from diffusers_tpo.data.dataset import as_torch_dataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, check_columns
from diffusers_tpo.shapes.images import RESOLUTION, read_image, render
from diffusers_tpo.shapes.scenes import BACKGROUNDS, COLOURS, PRINCIPLES, Group, Scene, mismatched_scene, sample_scene
from diffusers_tpo.shapes.verify import verify
from diffusers_tpo.shapes.world import FACTS, make_rows, make_scenes, verify_images


CIRCLES = Group(2, "small", "red", "circle", "left")
SQUARE = Group(1, "large", "blue", "square", "right")
SCENE = Scene((CIRCLES, SQUARE), "at night")


def draw(scene: Scene, seed: int = 0) -> np.ndarray:
    return render(scene, random.Random(seed))


def change(scene: Scene, index: int, **changes) -> Scene:
    groups = list(scene.groups)
    groups[index] = Group(**{**groups[index].__dict__, **changes})
    return Scene(tuple(groups), scene.background)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return make_scenes(1500, seed=1) + make_scenes(500, seed=1, held_out=True)


@pytest.fixture(scope="module")
def pictures(scenes) -> np.ndarray:
    """One of each scene, `(N, H, W, 3)`."""
    return np.stack([draw(scene, seed) for seed, scene in enumerate(scenes)])


def test_the_verifier_is_right_on_rendered_truth(scenes, pictures):
    facts = verify_images(pictures, scenes)
    assert set(facts) == set(FACTS)
    for name, right in facts.items():
        assert right.mean() >= 0.995, f"{name}: {right.mean():.2%}"


@pytest.mark.parametrize("principle", PRINCIPLES)
def test_mismatched_captions_are_false_of_the_image_for_their_principle(scenes, pictures, principle):
    rng, wrong, made = random.Random(0), 0, 0
    for scene, picture in zip(scenes, pictures, strict=True):
        edited = mismatched_scene(rng, scene, principle)
        if edited is None:
            continue
        made += 1
        facts = verify(picture, edited)
        wrong += facts[principle] or facts["aligned"]
        assert edited.caption() != scene.caption() and edited.is_valid()
        assert scene.is_held_out() or not edited.is_held_out()
    assert made >= 0.99 * len(scenes)
    assert wrong == 0


def test_training_and_held_out_scenes_do_not_overlap():
    training, held_out = (set(make_scenes(3000, seed=2, held_out=flag)) for flag in (False, True))
    assert not {scene.caption() for scene in training} & {scene.caption() for scene in held_out}
    turned = {Scene(scene.groups[::-1], scene.background) for scene in training}
    assert not turned & held_out  # the same scene told in another order
    share = np.mean([sample.is_held_out() for sample in (training | held_out)])
    assert 0.05 < share < 0.95


def test_scenes_are_counted_by_seed():
    assert make_scenes(20, seed=3) == make_scenes(20, seed=3) != make_scenes(20, seed=4)
    assert sample_scene(random.Random("a")) == sample_scene(random.Random("a"))
    assert np.array_equal(draw(SCENE, 5), draw(SCENE, 5))
    assert not np.array_equal(draw(SCENE, 5), draw(SCENE, 6))  # the objects move


def test_the_reader_finds_what_was_drawn():
    objects, background = read_image(draw(SCENE))
    assert background == "at night" and len(objects) == 3
    assert sorted((o.shape, o.colour, o.size) for o in objects) == [("circle", "red", "small")] * 2 + [
        ("square", "blue", "large")
    ]
    assert all(o.x < RESOLUTION / 2 for o in objects if o.shape == "circle")
    assert all(o.fit > 0.9 for o in objects)


WRONG = {
    "one circle too few": (change(SCENE, 0, count=1), {"content"}),
    "no square": (Scene((CIRCLES,), "at night"), {"content", "attribute", "spatial"}),
    "triangle for square": (change(SCENE, 1, shape="triangle"), {"content"}),
    "green circles": (change(SCENE, 0, colour="green"), {"attribute"}),
    "large circles": (change(SCENE, 0, size="large"), {"attribute"}),
    "colours exchanged": (change(change(SCENE, 0, colour="blue"), 1, colour="red"), {"attribute"}),
    "sides exchanged": (change(change(SCENE, 0, position="right"), 1, position="left"), {"spatial"}),
    "above and below": (change(change(SCENE, 0, position="top"), 1, position="bottom"), {"spatial"}),
    "snow": (Scene(SCENE.groups, "in the snow"), {"contextual"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_kind_of_wrong_image_is_caught_by_its_fact_alone(case):
    shown, false = WRONG[case]
    facts = verify(draw(shown), SCENE)
    assert {name for name in PRINCIPLES if not facts[name]} == false
    assert not facts["aligned"] and facts["clean"]
    assert verify(draw(SCENE), SCENE)["aligned"]


def test_the_extra_object_is_caught():
    pixels = draw(Scene((SQUARE,), "at night"))
    pixels[12:20, 2:10] = COLOURS["yellow"]
    assert not verify(pixels, Scene((SQUARE,), "at night"))["content"]


def test_a_smeared_shape_is_not_clean():
    pixels = np.empty((RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    pixels[:] = BACKGROUNDS["at night"]
    for i in range(4, 24):
        pixels[i : i + 3, i : i + 3] = COLOURS["red"]
    assert not verify(pixels, SCENE)["clean"]


def test_blank_and_noisy_images_are_not_aligned():
    rng = np.random.default_rng(0)
    for scene in make_scenes(50, seed=0):
        blank = np.empty((RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
        blank[:] = BACKGROUNDS[scene.background]
        facts = verify(blank, scene)
        assert facts["contextual"] and not any(facts[name] for name in ("content", "attribute", "spatial", "clean"))
        noise = rng.integers(0, 256, blank.shape, dtype=np.uint8)
        assert not verify(noise, scene)["aligned"]


def test_slight_noise_and_shading_do_not_change_the_answer(scenes, pictures):
    """A model's pixels are never exact."""
    rng = np.random.default_rng(0)
    kept = []
    for scene, picture in zip(scenes[:200], pictures, strict=False):
        noisy = picture + rng.normal(0, 6, (RESOLUTION, RESOLUTION, 3))
        kept.append(verify(noisy.clip(0, 255).astype(np.uint8), scene)["aligned"])
    assert np.mean(kept) >= 0.95


def test_rows_are_a_text_preference_data_set():
    rows = make_rows(make_scenes(20, seed=0), seed=0)
    unpaired = check_columns(rows, Columns(), "tdpo")
    dataset = as_torch_dataset(rows, RowReader(Columns(), "tdpo", unpaired, seed=0, resolution=RESOLUTION))
    row = dataset[0]
    assert row.crop.pixels.shape == (3, RESOLUTION, RESOLUTION) and row.is_matched == [True, False]
    assert all(set(names) <= set(PRINCIPLES) and len(names) >= 3 for names in rows["principles"])
    again = make_rows(make_scenes(20, seed=0), seed=0)
    assert again["negative_prompts"] == rows["negative_prompts"]
