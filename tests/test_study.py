"""The study of the shapes world: which images are shared, what its tables say, and that it goes on where it was."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from diffusers_tpo.evaluation.compare import at_own_best
from diffusers_tpo.intervals import mean_interval
from diffusers_tpo.shapes.scenes import PRINCIPLES
from diffusers_tpo.shapes.world import make_rows, make_scenes


SCRIPT = Path(__file__).parents[1] / "examples" / "text_preference" / "study_shapes.py"
SCALES = [1.0, 2.0]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("study_shapes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(aligned: dict[float, np.ndarray]) -> dict[str, np.ndarray]:
    """One seed of an arm in which all facts hold where the image is aligned."""
    facts = ("aligned", *PRINCIPLES, "clean")
    return {f"{scale:g}/{fact}": np.asarray(values, float) for scale, values in aligned.items() for fact in facts}


def test_every_set_has_a_base_and_its_rival(study):
    for name, arms in study.ARMS.items():
        assert arms["base"].stages == () and all(arm.stages for key, arm in arms.items() if key != "base"), name
    for name in ("main", "guidance", "guidance_search"):
        rivals = {study.kind_of(arm) for arm in study.ARMS[name] if arm.startswith("SFT, same time")}
        assert rivals == {study.kind_of(arm) for arm in study.ARMS[name] if arm != "base"}


def test_images_are_drawn_once_where_nobody_asks_about_the_empty_prompt(study, tmp_path):
    whole = study.Study(tmp_path, "shipped", study.ARMS["guidance"], [], False)
    arm = "TDPO, held, LoRA" + study.BY_REFERENCE
    assert whole.drawn_by(arm, 1.0) == "TDPO, held, LoRA" and whole.drawn_by(arm, 1.5) == arm
    assert whole.drawn_by("TDPO, full", 1.0) == "TDPO, full"


def test_an_arm_has_a_folder_of_its_own_that_a_shell_takes_as_it_is(study):
    for arms in study.ARMS.values():
        folders = {study.slug(name, 0) for name in arms}
        assert len(folders) == len(arms) and all(re.fullmatch(r"[\w.-]+", folder) for folder in folders)


def test_an_arm_that_was_begun_otherwise_is_refused(study, tmp_path):
    arms = {"base": study.Arm()}
    study.Study(tmp_path, "shipped", arms, make_scenes(2, 0), False).folder("base", 0)
    study.Study(tmp_path, "shipped", arms, make_scenes(2, 0), False).folder("base", 0)
    with pytest.raises(study.UserError, match="num_prompts"):
        study.Study(tmp_path, "shipped", arms, make_scenes(3, 0), False).folder("base", 0)
    with pytest.raises(study.UserError, match="base"):
        study.Study(tmp_path, "web", arms, make_scenes(2, 0), False).folder("base", 0)


def test_arms_are_asked_for_by_the_start_of_their_names(study):
    args = study.StudyArguments("x", arms="guidance", only=["TDPO, LoRA", "SFT, same time, LoRA"], seeds=[3, 4])
    trained = ["SFT, same time, LoRA", "TDPO, LoRA"]
    names = ["base", *(name + ending for name in trained for ending in ("", study.BY_REFERENCE))]
    assert list(study.asked_arms(args)) == [(seed, name) for seed in (3, 4) for name in names]


def test_the_best_guidance_flatters_nobody(study):
    """Nothing but chance at six scales: the highest mean lies above 1/2, what is chosen on other prompts does not."""
    rng = np.random.default_rng(0)
    scales = [float(scale) for scale in range(6)]
    highest, chosen = [], []
    for _ in range(100):
        seeds = [judged({scale: rng.random(100) < 0.5 for scale in scales}) for _ in range(2)]
        found = study.Judged({"arm": seeds}, scales)
        highest.append(found.aligned("arm").mean(axis=(1, 2)).max())
        chosen.append(found.at_best("arm").mean())
    assert np.mean(highest) > 0.53 and abs(np.mean(chosen) - 0.5) < 0.015


def test_at_its_best_an_arm_has_the_same_scale_with_every_seed(study):
    rng = np.random.default_rng(0)
    seeds = [judged({scale: rng.random(40) < 0.5 for scale in SCALES}) for _ in range(2)]
    one = study.Judged({"arm": seeds[:1]}, SCALES)
    assert np.array_equal(one.at_best("arm")[0], at_own_best(one.aligned("arm")[:, 0]))
    same = study.Judged({"arm": [seeds[0], seeds[0]]}, SCALES)
    assert np.array_equal(same.at_best("arm"), np.stack([one.at_best("arm")[0]] * 2))


def test_differences_hold_the_spread_between_seeds(study):
    """Two seeds of SFT, one twenty points better than the other: over prompts alone the gain would be beyond doubt."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(400)
    seeds = {"base": (0.5, 0.5), "SFT, same time, LoRA": (0.5, 0.7), "TDPO, LoRA": (0.6, 0.8)}
    found = {
        arm: [judged(dict.fromkeys(SCALES, difficulty < share)) for share in shares] for arm, shares in seeds.items()
    }
    found["TDPO, LoRA" + study.BY_REFERENCE] = found["TDPO, LoRA"][:1]  # a seed less
    rows = {
        (arm, other): cells for arm, other, *cells in study.report(found, SCALES, "SFT, same time")["differences"].rows
    }
    sft = rows["SFT, same time, LoRA", "base"][0]
    aligned = [found[arm][s]["1/aligned"] for arm in ("SFT, same time, LoRA", "base") for s in (0, 1)]
    alone = mean_interval([aligned[0] - aligned[2], aligned[1] - aligned[3]])
    assert sft.mean == pytest.approx(alone.mean) and alone.excludes_zero() and not sft.excludes_zero()
    tdpo = rows["TDPO, LoRA", "SFT, same time, LoRA"]
    assert len(tdpo) == 3 and all(cell.mean == pytest.approx(tdpo[0].mean) for cell in tdpo)
    assert set(rows) == {(arm, "base") for arm in found if arm != "base"} | {
        (arm, "SFT, same time, LoRA") for arm in found if arm.startswith("TDPO")
    } | {("TDPO, LoRA" + study.BY_REFERENCE, "own empty prompt")}
    assert all(cell.mean == 0 for cell in rows["TDPO, LoRA" + study.BY_REFERENCE, "own empty prompt"])


def test_two_ways_of_sampling_one_model_are_one_model_of_the_spread(study):
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(1, 2, 20)) for name in ("TDPO, LoRA", "TDPO, LoRA" + study.BY_REFERENCE, "TKTO")}
    assert study.pooled(values).degrees == 2


@pytest.mark.slow
def test_a_study_trains_in_stages_judges_and_goes_on(study, tmp_path, monkeypatch):
    scenes = make_scenes(3, 0, held_out=True)
    (tmp_path / "data").mkdir()
    make_rows(make_scenes(16, 0), 0).to_parquet(tmp_path / "data" / "train.parquet")
    one = "--use_lora --rank 2 --train_batch_size 2 --max_train_steps 1"
    arms = {"base": study.Arm(), **study.both_ways("TDPO, LoRA", f"--loss_type sft {one}", f"--loss_type tdpo {one}")}
    whole = study.Study(tmp_path, "shipped", arms, scenes, False)
    found = {arm: whole.judge(arm, 0, SCALES) for arm in arms}
    both = [found[arm] for arm in arms if arm != "base"]
    assert np.array_equal(both[0]["1/aligned"], both[1]["1/aligned"])
    assert {values.shape for values in both[1].values()} == {(3,)}
    monkeypatch.setattr(study, "judge_images", None)  # nothing is drawn again
    assert {name: values.tolist() for name, values in whole.judge("TDPO, LoRA", 0, SCALES).items()} == {
        name: values.tolist() for name, values in found["TDPO, LoRA"].items()
    }
