"""What is said of a base before preferences are trained on it: the rules, and the command on the embedded world."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import run_program

from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.advice import RULES, Signs, advise, first_flags, signs_of
from diffusers_tpo.evaluation.prompts import Prompt
from diffusers_tpo.evaluation.results import Results, read_results, write_results
from diffusers_tpo.intervals import Interval
from diffusers_tpo.shapes.world import PIPELINE, make_rows, make_scenes


SCRIPT = Path(__file__).parents[1] / "examples" / "text_preference" / "advise.py"
SURE, SOME, CHANCE = Interval(0.99, 0.97, 1.0), Interval(0.7, 0.6, 0.8), Interval(0.52, 0.4, 0.64)
UNKNOWN = Interval(np.nan, 0.0, 1.0)


def said(**signs) -> str:
    return "\n".join(one.says for one in advise(Signs(**{"accuracies": {}} | signs)))


def test_each_principle_is_spoken_of_once():
    signs = Signs({"content": SURE, "attribute": SOME, "spatial": CHANCE, "contextual": UNKNOWN})
    told = {name: [one.says for one in advise(signs) if name in one.says.lower()] for name in signs.accuracies}
    assert {name: len(sentences) for name, sentences in told.items()} == dict.fromkeys(signs.accuracies, 1)
    assert "knows" in told["content"][0] and "confuses" in told["attribute"][0]
    assert "at all" in told["spatial"][0] and "draws" in told["contextual"][0]
    assert first_flags(advise(signs)).endswith("--principles attribute")


def test_pairs_without_named_principles_choose_none():
    advices = advise(Signs({"all edits": SOME}))
    assert "confuses" in advices[0].says and "--principles" not in first_flags(advices)


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (None, None),
        (Interval(0.05, 0.03, 0.07), "Do that first"),
        (Interval(0.05, -0.01, 0.11), "nothing more"),
        (Interval(0.001, 0.0005, 0.0015), "nothing more"),
        (Interval(-0.05, -0.07, -0.03), "nothing more"),
    ],
)
def test_supervised_training_comes_first_while_it_gains(gain, words):
    text = said(supervised_gain=gain)
    assert (words in text) if words else "upervised" not in text


def test_a_base_that_needs_guidance_keeps_its_empty_prompt():
    asked = {"scales": (1.0, 2.0, 4.0), "best": 4.0}
    advices = advise(Signs({}, **asked, guided_gain=Interval(0.2, 0.1, 0.3)))
    assert "at 4, not at 1" in advices[0].says and "--guide_with reference" in first_flags(advices)
    unsure = advise(Signs({}, **asked, guided_gain=Interval(0.2, -0.1, 0.5)))
    assert "--guide_with" not in first_flags(unsure) and "without guidance" in unsure[0].says
    assert advise(Signs({})) == []


def test_every_rule_can_hold():
    signs = [
        Signs({"content": SURE, "attribute": SOME, "spatial": CHANCE, "contextual": UNKNOWN}),
        Signs({}, (1.0, 2.0), 2.0, Interval(0.2, 0.1, 0.3), Interval(0.1, 0.05, 0.15)),
        Signs({}, (1.0, 2.0), 1.0, Interval(0.0, 0.0, 0.0), Interval(0.0, -0.1, 0.1)),
    ]
    for rule in RULES:
        assert any(rule.holds(one) for one in signs), rule.says
        assert rule.evidence, rule.says


@pytest.fixture
def pairs() -> Results:
    """A base that tells content apart in about nine of ten pairs, and a model whose error is four percent lower."""
    rng = np.random.default_rng(0)
    base = {f"implicit/accuracy_corrected/{name}": 0.9 + 0.1 * rng.normal(size=50) for name in ("content", "spatial")}
    base |= {"implicit/accuracy_corrected": np.full(50, 0.9)}
    return Results(
        [],
        ["base", "supervised"],
        [1.0],
        preference={"base": base, "supervised": {"reward/matched_relative": np.full(50, 0.04)}},
    )


@pytest.fixture
def renders() -> Results:
    """Best at 4, of scales in no order; the score of the images' looks comes first and does not count."""
    scores = np.stack([np.full(20, value) + np.arange(20) / 100 for value in (0.5, 0.1, 0.3)])[None]
    prompts = [Prompt(f"prompt {number}") for number in range(20)]
    kinds = {"looks": "aesthetics", "fits": "adherence"}
    return Results(prompts, ["base"], [4.0, 1.0, 2.0], {"looks": 1 - scores, "fits": scores}, kinds)


def test_signs_are_read_from_evaluations(pairs, renders, tmp_path):
    written = []
    for name, results in {"pairs": pairs, "renders": renders}.items():
        write_results(results, tmp_path / f"{name}.json", {})
        written.append(read_results(tmp_path / f"{name}.json"))
    for signs in (signs_of(pairs, renders), signs_of(*written)):
        assert set(signs.accuracies) == {"content", "spatial"} and 0.8 < signs.accuracies["content"].mean < 1
        assert signs.supervised_gain.mean == pytest.approx(0.04)
        assert (signs.scales, signs.best) == ((1.0, 2.0, 4.0), 4.0) and signs.guided_gain.mean == pytest.approx(0.4)
    assert signs_of(pairs, None).best is None


def test_without_a_score_of_adherence_no_guidance_is_best(pairs, renders):
    with pytest.raises(UserError, match="--scorer"):
        signs_of(pairs, Results(renders.prompts, ["base"], renders.scales, {}, {}))


def test_another_file_is_no_evaluation(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    for path in (tmp_path / "results.json", tmp_path / "none.json"):
        with pytest.raises(UserError, match="results.json of an evaluation"):
            read_results(path)


@pytest.mark.parametrize(
    "flags", [{"scorer": "shapes"}, {"scorer": "shapes", "prompts": "shapes", "guidance_scales": [1, 1]}]
)
def test_renders_that_say_nothing_are_refused_before_anything_is_done(flags, tmp_path, capsys):
    place = {"pretrained_model_name_or_path": PIPELINE, "pairs": "shapes", "output_dir": tmp_path / "advice"}
    with pytest.raises(SystemExit) as stopped:
        run_program(SCRIPT, place | flags)
    assert stopped.value.code == 2 and "error: --" in capsys.readouterr().err
    assert not (tmp_path / "advice").exists()


@pytest.mark.slow
def test_the_command_asks_the_shipped_base_and_goes_on(tmp_path, capsys):
    make_rows(make_scenes(8, 0), 0).save_to_disk(tmp_path / "rows")
    flags = {
        "pretrained_model_name_or_path": PIPELINE,
        "pairs": "shapes",
        "num_pairs": 4,
        "strata": 4,
        "resolution": 32,
        "dataset_name": tmp_path / "rows",
        "sft_steps": 1,
        "scorer": "shapes",
        "prompts": "shapes",
        "num_prompts": 3,
        "guidance_scales": [1, 2],
        "output_dir": tmp_path / "advice",
    }
    run_program(SCRIPT, flags)
    printed = capsys.readouterr().out
    assert "Pairs told apart, content:" in printed and "diffusers-tpo train --use_lora" in printed
    found = json.loads((tmp_path / "advice" / "advice.json").read_text())
    assert set(found["signs"]["accuracies"]) == {"content", "attribute", "spatial", "contextual"}
    assert found["signs"]["scales"] == [1.0, 2.0] and found["signs"]["supervised_gain"] is not None
    weights = (tmp_path / "advice" / "supervised" / "pytorch_lora_weights.safetensors").stat().st_mtime_ns
    run_program(SCRIPT, flags)
    assert (tmp_path / "advice" / "supervised" / "pytorch_lora_weights.safetensors").stat().st_mtime_ns == weights
    assert json.loads((tmp_path / "advice" / "advice.json").read_text()) == found
