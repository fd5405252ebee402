"""The same questions for every model, with real tiny pipelines: rendered, scored, stopped and gone on with, collected."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import tiny_families
import torch
from PIL import Image
from safetensors.torch import load_file

from diffusers_tpo import training_scheduler
from diffusers_tpo.data.rows import Columns
from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.heldout import held_out_pairs
from diffusers_tpo.evaluation.prompts import Prompt
from diffusers_tpo.evaluation.renders import image_path, read_image, render_missing, sample_jobs
from diffusers_tpo.evaluation.results import Results, write_results
from diffusers_tpo.evaluation.scores import read_scores, score_missing, score_table
from diffusers_tpo.evaluation.suite import Suite
from diffusers_tpo.evaluation.summary import build_report, guidance_table, regressions
from diffusers_tpo.families import family_of
from diffusers_tpo.models.adapters import add_lora, has_lora
from diffusers_tpo.training.watch import CheckpointWatch


class Brightness:
    """A scorer of the user: how bright an image is, and whether the prompt is long; notes what it was given."""

    kinds = {"bright": "adherence", "constant": "aesthetics"}

    def __init__(self):
        self.judged = 0

    def __call__(self, images, prompts):
        self.judged += len(images)
        return {"bright": [float(np.asarray(image).mean()) for image in images], "constant": [0.5] * len(images)}


@pytest.fixture(scope="module")
def pairs():
    return held_out_pairs(tiny.make_dataset(5), Columns(), tiny.RESOLUTION, None)


@pytest.fixture(scope="module")
def pipe():
    return tiny.make_pipe()


def make_suite(folder, pairs, **changes) -> Suite:
    settings = {
        "guidance_scales": (1.0, 3.0),
        "num_inference_steps": 2,
        "resolution": tiny.RESOLUTION,
        "batch_size": 2,
    }
    settings |= {"strata": 2, "retrieval_size": 3, "images_per_prompt": 2, "score_batch_size": 3}
    prompts = [Prompt(caption) for caption in pairs.captions()]
    return Suite(folder, prompts, pairs=pairs, **(settings | changes))


def as_trained(pipe) -> SimpleNamespace:
    """A pipeline as a model that is judged."""
    return SimpleNamespace(
        pipe=pipe,
        family=family_of(pipe),
        scheduler=training_scheduler(pipe.scheduler),
        reference=None,
        knows_reference=has_lora(pipe.unet),
    )


def ask(suite: Suite, label: str, pipe) -> None:
    suite.ask(label, as_trained(pipe), progress=False)


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def answered(tmp_path_factory, pairs, pipe):
    """Two models, asked without a stop."""
    suite, scorer = make_suite(tmp_path_factory.mktemp("suite"), pairs), Brightness()
    suite.begin()
    for label, model in {"base": pipe, "run/other": tiny.make_pipe(seed=1)}.items():
        ask(suite, label, model)
    suite.score(["base", "run/other"], "mine", scorer, progress=False)
    assert scorer.judged == 2 * 2 * 5 * 2
    return suite


def test_an_image_depends_on_seed_prompt_and_number_alone(pipe):
    jobs, options = [("cat", 0), ("dog", 0), ("cat", 1)], {"num_inference_steps": 2, "guidance_scale": 1.0}
    images = [np.asarray(image).astype(int) for image in sample_jobs(pipe, jobs, 0, **options)]
    single = [np.asarray(sample_jobs(pipe, [job], 0, **options)[0]).astype(int) for job in jobs]
    for image, alone in zip(images, single, strict=True):
        assert np.abs(image - alone).max() <= 1
    assert (images[0] != images[2]).any() and (images[0] != images[1]).any()
    assert (np.asarray(sample_jobs(pipe, jobs[:1], 1, **options)[0]) != single[0]).any()


def test_a_stopped_run_goes_on_to_the_same_files(tmp_path, answered, pairs, pipe):
    suite, scorer = make_suite(tmp_path, pairs), Brightness()
    suite.begin()
    ask(suite, "base", pipe)
    for path in sorted(suite.images("base", 1.0).glob("*.png"))[3:6]:  # as if it had been killed while rendering
        path.unlink()
    (suite.images("base", 1.0) / ".partial-00001-0.png").write_bytes(b"torn")
    suite.errors("base").unlink()
    assert not suite.is_answered("base")
    ask(suite, "base", pipe)
    assert suite.is_answered("base")
    suite.score(["base"], "mine", scorer, progress=False)
    lines = (suite.scores("base", 3.0) / "mine-0.jsonl").read_text().splitlines()
    (suite.scores("base", 3.0) / "mine-0.jsonl").write_text(lines[0] + "\n" + lines[2] + "\n" + lines[3][:20])
    scorer.judged = 0
    suite.score(["base"], "mine", scorer, progress=False)
    assert scorer.judged == 3 + 1  # the second batch, and the last one that was cut off
    for scale in (1.0, 3.0):
        whole, mine = contents(answered.images("base", scale)), contents(suite.images("base", scale))
        assert {name: mine[name] for name in whole} == whole
    assert suite.errors("base").read_bytes() == answered.errors("base").read_bytes()
    kinds = {"mine": Brightness.kinds}
    ours, theirs = suite.results(["base"], kinds), answered.results(["base", "run/other"], kinds)
    for metric in Brightness.kinds:
        assert np.array_equal(ours.scores[metric][0], theirs.scores[metric][0])


def test_what_is_there_is_not_asked_again(answered, pipe):
    before = {path: path.stat().st_mtime_ns for path in answered.folder.rglob("*")}
    ask(answered, "base", pipe)
    scorer = Brightness()
    answered.score(["base", "run/other"], "mine", scorer, progress=False)
    assert scorer.judged == 0
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time and path.is_file()}
    assert changed <= {"mine-0.jsonl"}  # opened to append, nothing written


def test_other_settings_are_refused_by_name(answered, pairs, tmp_path):
    answered.begin()
    with pytest.raises(
        UserError, match="--output_dir was begun with other settings: seed was 0 and is 1; use the same"
    ):
        make_suite(answered.folder, pairs, seed=1).begin()
    with pytest.raises(UserError, match="prompts was"):
        Suite(answered.folder, [Prompt("cat")], (1.0, 3.0), pairs).begin()
    make_suite(answered.folder, pairs, guidance_scales=(7.0,)).begin()  # more scales may be added


class Told:
    """Scores that say which image and which prompt the scorer was given."""

    kinds = {"told": "adherence"}

    def __call__(self, images, prompts):
        levels = [float(np.asarray(image)[0, 0, 0]) for image in images]
        return {"told": [level + 1000 * len(prompt) for level, prompt in zip(levels, prompts, strict=True)]}


def test_every_score_is_that_of_its_image_and_prompt(tmp_path):
    """Two images of each of three prompts in batches of four; the first image of the second prompt is missing."""
    images, folder = tmp_path / "images", tmp_path / "scores"
    for job in [(0, 0), (0, 1), (1, 1), (2, 0), (2, 1)]:
        image_path(images, *job).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (10 * job[0] + job[1],) * 3).save(image_path(images, *job))
    score_missing(Told(), "mine", ["a", "bb", "ccc"], images, folder, images_per_prompt=2, batch_size=4)
    found = read_scores(folder, "mine", [4, 2])
    assert found[0]["told"] == pytest.approx([1000, 1001, math.nan, 2011], nan_ok=True)
    assert found[1]["told"] == [3020, 3021]
    table = score_table(folder, "mine", 3, images_per_prompt=2, batch_size=4)
    assert table["told"] == pytest.approx([1000.5, 2011, 3020.5])


def test_a_missing_or_broken_image_has_no_score_and_is_named(tmp_path, answered, pairs, pipe):
    suite = replace(make_suite(tmp_path, pairs, guidance_scales=(1.0,), images_per_prompt=1), pairs=None)
    ask(suite, "base", pipe)
    image_path(suite.images("base", 1.0), 1, 0).write_bytes(b"\x89PNG broken")
    image_path(suite.images("base", 1.0), 4, 0).unlink()
    suite.score(["base"], "mine", Brightness(), progress=False)
    results = suite.results(["base"], {"mine": Brightness.kinds})
    assert np.isnan(results.scores["bright"][0, 0]).tolist() == [False, True, False, False, True]
    report = build_report(suite, results, "title", {}, None)
    assert "bright: 2 of 5 prompts of base have no score; they are left out" in report.warnings
    assert read_image(image_path(suite.images("base", 1.0), 1, 0)) is None


def test_results_hold_everything_and_are_json(tmp_path, answered):
    results = answered.results(["base", "run/other"], {"mine": Brightness.kinds})
    assert results.scores["bright"].shape == (2, 2, 5) and results.shared
    images = [read_image(image_path(answered.images("run/other", 3.0), 2, n)) for n in range(2)]
    assert results.scores["bright"][1, 1, 2] == pytest.approx(np.mean([np.asarray(image).mean() for image in images]))
    assert set(results.retrieval) == {"base", "run/other"} and set(results.divergence) == {"run/other"}
    assert "reward/margin" not in results.preference["base"] and "reward/margin" in results.preference["run/other"]
    write_results(results, tmp_path / "results.json", {"about": {"seed": 0}})
    read = json.loads((tmp_path / "results.json").read_text())
    assert read["about"] == {"seed": 0} and read["prompts"][0] == {"text": "cat 0", "category": ""}
    gain = results.scores["bright"][1, 0] - results.scores["bright"][0, 0]
    assert list(read["differences_to_first"]["bright"]) == ["run/other"]
    told = read["differences_to_first"]["bright"]["run/other"]["1"]
    assert told["difference"]["mean"] == pytest.approx(gain.mean(), rel=1e-5)
    assert told["win_rate"]["mean"] == pytest.approx((gain > 0).mean()) and told["prompts"] == 5
    same = read["differences_to_first"]["constant"]["run/other"]["at best guidance"]
    assert same["ties"] == 1 and same["win_rate"]["mean"] == 0.5 and same["difference"]["high"] == 0


def test_the_report_shows_the_largest_gains_and_losses(answered):
    results = answered.results(["base", "run/other"], {"mine": Brightness.kinds})
    report = build_report(answered, results, "title", {"seed": "0"}, None)
    titles = [table.title for table in report.tables]
    assert titles[:3] == ["Implicit preference", "By principle", "Against base"]
    assert "bright (adherence)" in titles and "constant: minus base" in titles
    assert "by category" not in " ".join(titles) and "Correlation" not in " ".join(
        titles
    )  # of two models there is none
    for examples, sign in ((report.gains, 1), (report.losses, -1)):
        gaps = [sign * (float(e.images[1][2]) - float(e.images[0][2])) for e in examples]
        assert all(gap > 0 for gap in gaps) and gaps == sorted(gaps, reverse=True)
    shown = [example.prompt for example in report.gains + report.losses]
    assert sorted(shown) == [f"cat {i}" for i in range(5)]
    for _, path, _ in (report.gains + report.losses)[0].images:
        assert Image.open(path).size == (tiny.RESOLUTION, tiny.RESOLUTION)


def known_results(models: int, prompts: int, slope: float, noise: float = 0.0, categories: bool = False) -> Results:
    """Scores that are a known line of the implicit preference score over models and prompts."""
    rng = np.random.default_rng(0)
    labels = [f"run/{m}" for m in range(models)]
    x = rng.normal(size=(models, 1)) + rng.normal(size=(1, prompts)) + 0.3 * rng.normal(size=(models, prompts))
    y = 2 + slope * x + noise * rng.normal(size=x.shape)
    texts = [Prompt(f"p {i}", ["one", "two"][i % 2] if categories else "") for i in range(prompts)]
    preference = {label: {"implicit/score": x[m]} for m, label in enumerate(labels)}
    scores = {"fit": np.stack([y, y], axis=1), "fixed": np.full((models, 2, prompts), 0.5)}
    return Results(texts, labels, [1.0, 2.0], scores, {"fixed": "aesthetics"}, preference, shared=True)


def test_the_correlation_of_known_lines(tmp_path):
    results = known_results(6, 20, slope=3.0)
    for found in regressions(results, results.scores["fit"][:, 0]).values():
        assert found.slope.mean == pytest.approx(3) and found.pearson.mean == pytest.approx(1)
    noisy = known_results(6, 20, slope=3.0, noise=5.0)
    within = regressions(noisy, noisy.scores["fit"][:, 0])["prompts"]
    assert within.slope.low < 3 < within.slope.high and within.pearson.mean < 0.95 and within.n == 120
    none = regressions(results, results.scores["fixed"][:, 0])["models"]
    assert math.isnan(none.pearson.mean)
    report = build_report(Suite(tmp_path, results.prompts), results, "t", {}, None)
    table = next(table for table in report.tables if table.title.startswith("Correlation"))
    assert ["fit", "2", "models", "6"] in [row[:4] for row in table.rows]
    assert {scatter.name for scatter in report.scatters} == {"correlation-fit", "correlation-fixed"}
    assert report.scatters[0].groups == ["run"] * 6
    assert [curves.name for curves in report.curves[:3]] == ["steps-fit", "steps-fixed", "guidance-fit"]
    (line,) = report.curves[0].lines
    best = [results.at_best("fit", model).mean() for model in results.models]
    assert line.label == "run" and line.x == [0, 1, 2, 3, 4, 5] and line.mean == pytest.approx(best)


def test_of_many_models_the_curves_show_the_first_and_the_best(tmp_path):
    results = known_results(12, 20, slope=1.0)
    report = build_report(Suite(tmp_path, results.prompts), results, "t", {}, None)
    curves = next(curves for curves in report.curves if curves.name == "guidance-fit")
    best = max(results.models, key=lambda model: results.at_best("fit", model).mean())
    assert [line.label for line in curves.lines] == ["run/0", best]


def test_categories_have_their_own_differences(tmp_path):
    results = known_results(2, 20, slope=1.0, categories=True)
    report = build_report(Suite(tmp_path, results.prompts), results, "t", {}, None)
    table = next(table for table in report.tables if table.title == "fit by category")
    assert [row[:2] for row in table.rows] == [["one", "10"], ["two", "10"]]
    part = results.scores["fit"][:, 0, ::2]
    assert table.rows[0][3].startswith(f"{(part[1] - part[0]).mean():.1f}"[:3])


LINES = {
    "of another size": '{"batch": 0, "scores": {"bright": [1.0], "constant": [0.5]}}',
    "of no batch": '{"batch": 9, "scores": {"bright": [1, 2, 3], "constant": [1, 2, 3]}}',
    "of a negative batch": '{"batch": -1, "scores": {"bright": [1, 2, 3], "constant": [1, 2, 3]}}',
    "with an infinite number": '{"batch": 0, "scores": {"bright": [1, Infinity, 3], "constant": [1, 2, 3]}}',
    "with text": '{"batch": 0, "scores": {"bright": ["high", "low", "low"]}}',
    "with an object": '{"batch": 0, "scores": {"bright": {}}}',
    "of a list": "[1, 2]",
    "without end": "[" * 100_000,
    "of a number too large": '{"batch": 1e999, "scores": {}}',
}


@pytest.mark.parametrize("line", LINES)
def test_a_damaged_line_of_scores_counts_as_not_there(tmp_path, line):
    (tmp_path / "mine-0.jsonl").write_bytes(LINES[line].encode() + b"\n\xff\n")
    assert read_scores(tmp_path, "mine", [3, 3, 1]) == {}
    good = '{"batch": 2, "scores": {"bright": [0.25]}}'
    (tmp_path / "mine-1.jsonl").write_text(f"{LINES[line]}\n{good}\n")
    assert read_scores(tmp_path, "mine", [3, 3, 1]) == {2: {"bright": [0.25]}}


class Broken(Brightness):
    """An endpoint that is down at first."""

    def __init__(self):
        super().__init__()
        self.is_up = False

    def __call__(self, images, prompts):
        found = super().__call__(images, prompts)
        return found if self.is_up else {name: [math.nan] * len(images) for name in self.kinds}


def test_images_without_any_score_are_judged_again(tmp_path, pairs, pipe):
    suite = replace(make_suite(tmp_path, pairs, guidance_scales=(1.0,)), pairs=None)
    ask(suite, "base", pipe)
    scorer = Broken()
    suite.score(["base"], "mine", scorer, progress=False)
    assert np.isnan(suite.results(["base"], {"mine": scorer.kinds}).scores["bright"]).all()
    scorer.is_up = True
    suite.score(["base"], "mine", scorer, progress=False)
    assert not np.isnan(suite.results(["base"], {"mine": scorer.kinds}).scores["bright"]).any()


def test_two_scorers_that_give_the_same_metric_are_refused(tmp_path, pairs, pipe):
    suite = replace(make_suite(tmp_path, pairs, guidance_scales=(1.0,)), pairs=None)
    ask(suite, "base", pipe)
    for name in ("mine", "other"):
        suite.score(["base"], name, Brightness(), progress=False)
    with pytest.raises(UserError, match="scorers mine and other both give 'bright'"):
        suite.results(["base"], {"mine": {}, "other": {}})


def test_one_prompt_and_one_model_make_a_report(tmp_path):
    results = known_results(1, 1, slope=1.0)
    report = build_report(Suite(tmp_path, results.prompts), results, "t", {}, None)
    assert report.gains == [] and report.losses == [] and len(report.tables) >= 3


def test_held_out_pairs_are_checked_and_cut(pairs):
    assert len(pairs) == 5 and pairs.prompts[2] == ["cat 2", "dog 2", "2 red cats"]
    assert held_out_pairs(tiny.make_dataset(5), Columns(), 16, 2).captions() == ["cat 0", "cat 1"]
    no_principles = held_out_pairs(tiny.make_dataset(2, principles=None), Columns(), 16, None)
    assert no_principles.principles == [["", ""]] * 2
    with pytest.raises(UserError, match="row 1: a mismatched prompt equals its prompt"):
        held_out_pairs(tiny.make_dataset(2, negative_prompts=[["x"], ["cat 1"]], principles=None), Columns(), 16, None)
    with pytest.raises(UserError, match="negative_prompts_column 'negative_prompts' is not a column"):
        held_out_pairs(tiny.make_dataset(2, negative_prompts=None), Columns(), 16, None)
    with pytest.raises(UserError, match="must be at least 1, got 0"):
        held_out_pairs(tiny.make_dataset(2), Columns(), 16, 0)


def test_distinct_rows_are_the_first_of_each_caption():
    rows = tiny.make_dataset(5, prompt=["a", "b", "a", "c", "b"])
    pairs = held_out_pairs(rows, Columns(), 16, None)
    assert pairs.distinct(10) == [0, 1, 3] and pairs.distinct(2) == [0, 1]


def test_latents_do_not_depend_on_the_batch(pairs, pipe):
    whole, sizes = pairs.encode(family_of(pipe), pipe, batch_size=5)
    parts, same_sizes = pairs.encode(family_of(pipe), pipe, batch_size=2)
    assert torch.allclose(parts, whole, **tiny.FLOAT_TOLERANCE) and torch.equal(sizes, same_sizes)
    assert sizes.tolist() == [[16, 16, 0, 0, 16, 16]] * 5
    assert whole.shape == (5, *tiny.LATENT)


def test_render_missing_counts_what_it_did(tmp_path, pipe):
    job = (tmp_path, 1, 0, 2)
    assert render_missing(pipe, ["cat", "dog", "red"], *job, guidance_scale=1.0, num_inference_steps=1) == 3
    image_path(tmp_path, 1, 0).unlink()
    assert (
        render_missing(pipe, ["cat", "dog", "red"], *job, guidance_scale=1.0, num_inference_steps=1) == 2
    )  # its whole batch
    assert not list(tmp_path.glob(".partial*"))


def test_what_training_changed_is_measured_where_the_reference_can_be_asked(tmp_path, pairs, answered):
    """With a LoRA, in the folder, the log, the report and the card; where nothing can be asked, nothing is said."""
    trained = tiny.make_pipe()
    add_lora(trained.unet, ("to_q", "to_v"), rank=2)
    suite = make_suite(tmp_path, pairs, retrieval_size=0, guidance_scales=(3.0,), images_per_prompt=1)
    watch = CheckpointWatch(suite, {"mine": Brightness()}, "bright", "user/rows", "test", guide_with="reference")
    watch.begin(as_trained(trained), step=0, identity={})
    with torch.no_grad():
        for name, parameter in trained.unet.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    means = watch.judge("checkpoint-1", as_trained(trained))
    assert np.isfinite(means["eval/guidance/built_in"]) and 0 <= means["eval/guidance/share"] <= 1
    results = watch.results(["base", "checkpoint-1"])
    assert results.preference["base"]["guidance/built_in"] == pytest.approx(np.zeros(5))
    (table,) = guidance_table(results)
    assert [row[0] for row in table.rows] == ["base", "checkpoint-1"] and table.header[1] == "built_in"
    evaluation = watch.conclude(load_best=False)[2]
    assert "The base answered the empty prompt of their guidance." in evaluation.text()
    assert "In place of guidance 3 with the base: sample at " in evaluation.text()
    assert not any(result.metric_type.startswith("guidance/") for result in evaluation.results())
    scale_3 = {name: image_path(suite.images(name, 3.0), 0, 0).read_bytes() for name in ("base", "checkpoint-1")}
    assert scale_3["base"] != scale_3["checkpoint-1"]

    other = CheckpointWatch(suite, {"mine": Brightness()}, "bright", "user/rows", "test")
    with pytest.raises(UserError, match="guide_with was 'reference' and is None"):
        other.begin(as_trained(trained), step=1, identity={})
    flux = tiny_families.make_pipe("flux")
    distilled = SimpleNamespace(
        pipe=flux,
        family=family_of(flux),
        scheduler=training_scheduler(flux.scheduler),
        reference=flux.transformer,
        knows_reference=True,
    )
    inside = make_suite(tmp_path / "distilled", pairs, retrieval_size=0, guidance_scales=())
    inside.ask("distilled", distilled, progress=False)
    assert set(load_file(inside.errors("distilled"))) == {"pairs"}
    assert guidance_table(answered.results(["base", "run/other"], {"mine": Brightness.kinds})) == []


def test_a_prompt_that_occurs_twice_is_rendered_with_two_seeds(tmp_path, pipe):
    render_missing(pipe, ["cat", "dog", "cat"], tmp_path, 2, 0, 6, guidance_scale=1.0, num_inference_steps=1)
    found = {image_path(tmp_path, index, number).read_bytes() for index in (0, 2) for number in (0, 1)}
    assert len(found) == 4


def test_the_watch_remembers_the_best_and_forgets_what_comes_later(tmp_path, pairs, pipe):
    suite = make_suite(tmp_path, pairs, retrieval_size=0, guidance_scales=(1.0,))
    source = {"dataset": "user/rows", "split": "test", "is_trained_on": True}
    watch = CheckpointWatch(suite, {"mine": Brightness()}, metric="bright", **source)
    watch.begin(as_trained(pipe), step=0, identity={"weights": "a", "vae": None})
    assert watch.judged == [] and watch.best() is None
    for step, seed in ((9, 1), (10, 2)):
        means = watch.judge(f"checkpoint-{step}", as_trained(tiny.make_pipe(seed=seed)))
    assert {"eval/bright", "eval/error/matched", "eval/implicit/accuracy", "eval/reward/margin"} <= set(means)
    results = watch.results(["base", "checkpoint-9", "checkpoint-10"])
    bright = results.scores["bright"][1:, 0].mean(axis=1)
    best = ["checkpoint-9", "checkpoint-10"][int(bright.argmax())]
    assert watch.best() == best and watch.conclude(load_best=True)[0] == best
    label, sentence, evaluation = watch.conclude(load_best=False)
    card = evaluation.text()
    assert label is None and best in sentence and "| checkpoint-10" in card and "| bright" in card
    assert "5 images of the split `test` of user/rows" in card and "trained on these images" in card
    assert "chosen by these figures" not in card and "95 % bootstrap" in card and "(seed 0)" in card
    assert "chosen by these figures" in watch.conclude(load_best=True)[2].text()
    figures = {result.metric_type: result.metric_value for result in evaluation.results()}
    assert figures["bright"] == pytest.approx(bright[1].mean(), rel=1e-4) and "reward/margin" in figures
    renewed = watch.judge("checkpoint-10", as_trained(tiny.make_pipe(seed=7)))  # a resumed run comes by again
    assert (
        renewed["eval/error/matched"] != means["eval/error/matched"] and renewed["eval/bright"] != means["eval/bright"]
    )
    (tmp_path / "implicit" / "checkpoint-11.safetensors.partial").write_bytes(b"torn")
    again = CheckpointWatch(suite, {"mine": Brightness()}, metric="bright")
    again.begin(as_trained(tiny.make_pipe(seed=5)), step=9, identity={"weights": "a", "vae": None})  # not judged anew
    assert again.judged == ["checkpoint-9"]
    assert again.results(["base"]).scores["bright"][0] == pytest.approx(results.scores["bright"][0])
    with pytest.raises(UserError, match="the model 'base' was begun with other settings: vae was None and is 'b'"):
        again.begin(as_trained(pipe), step=9, identity={"weights": "a", "vae": "b"})
