"""`evaluate.py` and the evaluation of the training script as users run them: kinds of models, sweep, resuming, wrong input."""

import json
import os
import shutil

import numpy as np
import pytest
import tiny
import tiny_families
import torch
from chat_server import ChatServer, vision
from conftest import SCRIPT, as_flags, run_program
from processes import finish, said, start
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.renders import image_path, sample_jobs
from diffusers_tpo.guidance import guide_with_reference
from diffusers_tpo.models.checkpoints import list_checkpoints
from diffusers_tpo.models.fingerprints import fingerprint
from diffusers_tpo.models.loading import kind_of, load_model
from diffusers_tpo.models.recipe import ModelRecipe


EVALUATE = SCRIPT.with_name("evaluate.py")
SMALL = {
    "resolution": tiny.RESOLUTION,
    "num_inference_steps": 2,
    "guidance_scales": [1, 3],
    "batch_size": 4,
    "strata": 2,
}
MINE = """
import numpy as np
def brightness(images, prompts):
    return [float(np.asarray(image).mean()) for image in images]
def colours(images, prompts):
    return {"red": [float(np.asarray(image)[..., 0].mean()) for image in images], "missing": [None] * len(images)}
"""


JUDGED = {"beta": 500, "max_train_steps": 3, "checkpointing_steps": 1, "train_batch_size": 4, "learning_rate": 1e-2}
JUDGED |= {"eval_steps": 1, "eval_split": "train", "max_eval_samples": 5}
KINDS = {
    "lora": {"use_lora": True, "lora_dropout": 0.2, "use_ema": True, "ema_decay": 0.5},
    "full": {"loss_type": "sft", "guide_with": "reference"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_flags):
    """A LoRA run with averages and dropout and a full run, three checkpoints each, judged on the way."""
    root = tmp_path_factory.mktemp("runs")
    for name, flags in KINDS.items():
        run_program(SCRIPT, small_flags | JUDGED | flags | {"output_dir": root / name})
    return root


@pytest.fixture
def evaluate(monkeypatch, tmp_path, pipe_dir, data_dir):
    """Runs `evaluate.py` in this process; returns results.json, or what it printed when it ended with exit code 2."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)

    def run(output="out", white=True, **flags):
        given = {"pretrained_model_name_or_path": pipe_dir, "pairs": data_dir, "output_dir": tmp_path / output}
        try:
            run_program(EVALUATE, given | SMALL | flags, white)
        except SystemExit as stopped:
            return stopped.code
        return json.loads((tmp_path / output / "results.json").read_text())

    return run


def test_every_kind_of_model_is_told_apart_and_loaded(runs, pipe_dir):
    lora, full = runs / "lora", runs / "full"
    assert [kind_of(str(path)) for path in (pipe_dir, lora, full, full / "checkpoint-2")] == [
        "pipeline",
        "lora",
        "pipeline",
        "checkpoint",
    ]
    assert kind_of(str(lora / "pytorch_lora_weights.safetensors")) == "lora"
    final, last = (load_model(str(path), pipe_dir).pipe for path in (full, full / "checkpoint-3"))
    for name, value in last.unet.state_dict().items():
        assert torch.equal(value, final.unet.state_dict()[name]), name
    merged = {}
    for name, source in {"final": lora, "last": lora / "checkpoint-3"}.items():
        pipe = load_model(str(source), pipe_dir).pipe
        merged[name] = pipe("cat", num_inference_steps=2, generator=torch.manual_seed(0), output_type="np").images
    assert (
        np.abs(merged["final"] - merged["last"]).max() < 1e-5
    )  # the final LoRA is the average, and so is the checkpoint's
    plain = load_file(lora / "checkpoint-3" / "lora.safetensors")
    averaged = {n: p for n, p in pipe.unet.named_parameters() if "lora_A" in n}
    assert any(not torch.equal(value, plain[n.replace(".default", "")]) for n, value in averaged.items())


def test_wrong_models_are_one_sentence(runs, pipe_dir, tmp_path):
    with pytest.raises(UserError, match="holds no pipeline"):
        kind_of(str(tmp_path))
    with pytest.raises(UserError, match="name its pipeline in --pretrained_model_name_or_path"):
        load_model(str(runs / "lora"))
    broken = tmp_path / "checkpoint-1"
    shutil.copytree(runs / "full" / "checkpoint-1", broken)
    state = json.loads((broken / "trainer_state.json").read_text())
    state["model"] = ModelRecipe(str(tmp_path / "gone")).as_dict()
    (broken / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="name the base of checkpoint-1 in --pretrained_model_name_or_path"):
        load_model(str(broken))
    assert load_model(str(broken), pipe_dir).recipe.source == pipe_dir
    (broken / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="which does not load"):
        load_model(str(broken), pipe_dir)
    before = fingerprint(str(broken))
    (broken / "model.safetensors").write_bytes(b"other, longer")
    assert fingerprint(str(broken)) != before


def test_a_sweep_names_the_best_checkpoint(evaluate, runs, capsys, tmp_path):
    """By the metric that is asked for, and by the user's own where none is."""
    first = evaluate(sweep=runs / "lora", scorers="mine:brightness", num_pairs=5)
    assert first["choice"]["metric"] == "brightness" and first["kinds"]["brightness"] == "adherence"
    results = evaluate(sweep=runs / "lora", scorers=["mine:brightness", "mine:colours"], metric="red", num_pairs=5)
    assert results["models"] == ["base", "checkpoint-1", "checkpoint-2", "checkpoint-3"]
    red = {
        label: np.mean(scores, axis=1)
        for label, scores in zip(results["models"], results["scores"]["red"], strict=True)
    }
    assert all(len(set(values)) == 2 for values in red.values())
    assert results["choice"]["best"].startswith("checkpoint-") and results["choice"]["metric"] == "red"
    shown = capsys.readouterr().out
    assert f"Best by red: {results['choice']['best']}." in shown
    assert "missing: 10 of 10 prompts of base have no score" in shown
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "results.json", "plots", "images", "scores", "implicit"} <= names
    assert "Correlation with the implicit preference" in (tmp_path / "out" / "report.html").read_text()
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} >= {
        "guidance-red.png",
        "correlation-red.png",
    }


def test_the_rule_and_the_training_script_agree_with_the_sweep(evaluate, runs):
    """The same pairs, draws and weights: what was measured while training is what the sweep measures afterwards."""
    results = evaluate(sweep=runs / "lora", num_pairs=5, strata=8, scorers=None, seed=0)
    log = [json.loads(line) for line in (runs / "lora" / "training_log.jsonl").read_text().splitlines()]
    for row in log:
        values = results["preference"][f"checkpoint-{row['step']}"]
        for name in ("error/matched", "implicit/score", "implicit/accuracy", "reward/margin", "guidance/built_in"):
            assert row[f"eval/{name}"] == pytest.approx(np.mean(values[name]), rel=1e-3, abs=1e-6), name
    assert results["choice"]["metric"] == "implicit/score_relative"
    supervised = [json.loads(line) for line in (runs / "full" / "training_log.jsonl").read_text().splitlines()]
    assert all("eval/guidance/built_in" in row for row in supervised)  # as it was asked to keep the base
    card = (runs / "lora" / "README.md").read_text()
    assert "5 images of the split `train`" in card and "| checkpoint-3" in card and "Not evaluated" not in card


@pytest.mark.slow
def test_a_stopped_run_gives_the_same_results(evaluate, tmp_path, runs):
    flags = {"models": [f"lora={runs / 'lora'}"], "scorers": "mine:brightness", "num_pairs": 6, "retrieval_size": 4}
    whole = evaluate("whole", **flags)
    evaluate("again", **flags)
    folder = tmp_path / "again"
    for number in (1, 2, 5):
        image_path(folder / "images" / "lora" / "guidance-3", number, 0).unlink()
    (folder / "implicit" / "lora.safetensors").unlink()
    shutil.rmtree(folder / "scores" / "base")
    (folder / "results.json").unlink()
    again = evaluate("again", **flags)
    for name in ("scores", "preference", "retrieval", "divergence", "means", "differences_to_first", "prompts"):
        assert again[name] == whole[name], name
    more = evaluate("again", **flags | {"guidance_scales": [1, 3, 5], "scorers": ["mine:brightness", "mine:colours"]})
    assert [scores[:2] for scores in more["scores"]["brightness"]] == whole["scores"]["brightness"]
    assert set(more["scores"]) == {"brightness", "red", "missing"}


def test_a_lora_is_judged_without_its_dropout(runs, pipe_dir):
    pipe = load_model(str(runs / "lora"), pipe_dir).pipe
    assert not any(module.training for module in pipe.unet.modules())
    assert not any(parameter.requires_grad for parameter in pipe.unet.parameters())


def test_a_lora_that_fits_nothing_is_refused(tmp_path, pipe_dir):
    save_file({"transformer.blocks.0.to_q.lora_A.weight": torch.ones(2, 4)}, tmp_path / "junk.safetensors")
    with pytest.raises(UserError, match="fit"):
        load_model(str(tmp_path / "junk.safetensors"), pipe_dir)


def test_what_a_run_leaves_beside_its_lora_does_not_change_it(tmp_path, runs):
    shutil.copytree(runs / "lora", tmp_path / "lora")
    before = fingerprint(str(tmp_path / "lora"))
    (tmp_path / "lora" / "evaluation-of-it").mkdir()
    (tmp_path / "lora" / "evaluation-of-it" / "x.json").write_text("{}")
    assert fingerprint(str(tmp_path / "lora")) == before


@pytest.mark.slow
def test_one_command_compares_both_ways_of_guidance(evaluate, runs, pipe_dir, tmp_path, capsys):
    """The LoRA is off in the half of the empty prompt; a model that was trained in full has the base there."""
    models = [f"lora={runs / 'lora'}", f"full={runs / 'full'}"]
    flags = {"models": models, "num_pairs": 2, "scorers": "mine:brightness"}
    results = evaluate(**flags, guide_with="both")
    ways = ["guided-by-reference/lora", "guided-by-reference/full"]
    assert results["models"] == ["base", "lora", ways[0], "full", ways[1]]
    assert "full (full), guided-by-reference/full (full, guided with its reference)" in results["about"]["models"]
    scores = dict(zip(results["models"], results["scores"]["brightness"], strict=True))
    base = load_model(pipe_dir).pipe.unet
    for name, reference in {"lora": None, "full": base}.items():
        own, guided = scores[name], scores[f"guided-by-reference/{name}"]
        assert own[0] == guided[0] and own[1] != guided[1]
        pipe = load_model(str(runs / name), pipe_dir).pipe
        captions = [prompt["text"] for prompt in results["prompts"]]
        with guide_with_reference(pipe, reference):
            jobs = [(text, 0) for text in captions]
            images = sample_jobs(pipe, jobs, 0, 3.0, num_inference_steps=2, height=16, width=16)
        assert [float(np.asarray(image).mean()) for image in images] == pytest.approx(guided[1])

    path = tmp_path / "out" / "models" / ways[0]
    path = path.with_suffix(".json")
    kept = json.loads(path.read_text())
    assert kept["guide_with"] == "reference"
    path.write_text(json.dumps(kept | {"guide_with": None}))
    assert evaluate(**flags, guide_with="reference") == 2
    assert "was begun with other settings: guide_with was None and is 'reference'" in capsys.readouterr().err


def test_a_model_that_cannot_be_guided_with_its_reference_is_refused(evaluate, runs, tmp_path, capsys):
    def refused(**flags):
        assert evaluate(guide_with="reference", num_pairs=2, scorers=None, **flags) == 2
        return capsys.readouterr().err

    lone = {"pretrained_model_name_or_path": None, "models": [f"full={runs / 'full'}"]}
    assert "nothing says what 'full' was trained from; give --pretrained_model_name_or_path" in refused(**lone)
    flux = tmp_path / "flux"
    tiny_families.make_pipe("flux").save_pretrained(flux)
    said = refused(pretrained_model_name_or_path=flux, models=[f"mine={flux}"], output="distilled")
    assert "--guide_with does not go with 'flux': this FluxPipeline is guided by distillation" in said


def test_a_wrong_metric_is_said_after_the_report(evaluate, runs, capsys, tmp_path):
    assert evaluate(sweep=runs / "lora", metric="nonsense", num_pairs=3, scorers=None) == 2
    assert "metric 'nonsense' was not measured" in capsys.readouterr().err and (tmp_path / "out/report.html").exists()


def test_a_model_is_known_by_its_content(evaluate, runs, tmp_path, capsys):
    """A folder that was moved, or whose files were touched, is the same; other weights or another way to load them are not."""
    model = tmp_path / "model"
    shutil.copytree(runs / "lora", model)
    flags = {"models": [f"mine={model}"], "num_pairs": 4, "scorers": None}
    first = evaluate(**flags)
    (model / "pytorch_lora_weights.safetensors").touch()
    model.rename(tmp_path / "moved")
    moved = evaluate(**flags | {"models": [f"mine={tmp_path / 'moved'}"]})
    assert moved["preference"] == first["preference"]

    def refused(**changes) -> str:
        capsys.readouterr()
        assert evaluate(**flags | {"models": [f"mine={tmp_path / 'moved'}"]} | changes) == 2
        return capsys.readouterr().err

    assert "the model 'base' was begun with other settings: dtype was 'float32' and is" in refused(dtype="bfloat16")
    assert "prediction_type was None and is 'v_prediction'" in refused(prediction_type="v_prediction")
    weights = tmp_path / "moved" / "pytorch_lora_weights.safetensors"
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights, metadata)
    assert "the model 'mine' was begun with other settings: weights was" in refused()


def test_pairs_are_known_by_their_content(evaluate, tmp_path, capsys):
    """Of images in files too, wherever the folder lies; the sentence names the part that changed."""
    (tmp_path / "pairs").mkdir()
    for number, image in enumerate(tiny.make_images(3)):
        image.save(tmp_path / "pairs" / f"{number}.png")
    lines = [
        {"file_name": f"{number}.png", "prompt": f"cat {number}", "negative_prompts": [f"dog {number}"]}
        for number in range(3)
    ]

    def write(folder):
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(folder="pairs"):
        capsys.readouterr()
        found = evaluate(pairs=tmp_path / folder, scorers=None)
        return found if isinstance(found, dict) else capsys.readouterr().err

    write(tmp_path / "pairs")
    first = run()
    (tmp_path / "pairs").rename(tmp_path / "moved")
    assert run("moved")["preference"] == first["preference"]
    lines[1]["negative_prompts"] = ["a bird"]
    write(tmp_path / "moved")
    assert "--output_dir was begun with other settings: mismatched prompts of the pairs was" in run("moved")
    lines[1]["negative_prompts"] = ["dog 1"]
    write(tmp_path / "moved")
    assert run("moved")["preference"] == first["preference"]
    tiny.make_images(1, seed=9)[0].save(tmp_path / "moved" / "1.png")
    assert "--output_dir was begun with other settings: images of the pairs was" in run("moved")


def test_an_edited_scorer_is_not_mixed_with_its_old_scores(evaluate, tmp_path, capsys):
    flags = {"scorers": "mine:brightness", "num_pairs": 2, "guidance_scales": [1]}
    evaluate(**flags)
    (tmp_path / "mine.py").write_text(MINE.replace(".mean()", ".max()"))
    assert evaluate(**flags) == 2
    assert (
        "the scorer 'mine:brightness' was begun with other settings: content of its module" in capsys.readouterr().err
    )


def test_a_broken_checkpoint_is_left_out_of_the_sweep(evaluate, runs, tmp_path, capsys):
    """The weights of one are no numbers, another does not say what it is: the third is judged, and the report says so."""
    shutil.copytree(runs / "full", tmp_path / "run")
    broken = tmp_path / "run" / "checkpoint-3" / "model.safetensors"
    save_file({name: value * torch.nan for name, value in load_file(broken).items()}, broken, {"format": "pt"})
    (tmp_path / "run" / "checkpoint-2" / "trainer_state.json").write_text("{}")
    results = evaluate(sweep=tmp_path / "run", num_pairs=3, scorers=None, metric="implicit/score")
    assert results["models"] == ["base", "checkpoint-1"]
    shown = capsys.readouterr().out
    assert "checkpoint-3 is left out: " in shown and "not finite" in shown and "checkpoint-2 is left out: " in shown
    assert evaluate("other", models=[f"mine={broken.parent}"], num_pairs=3, scorers=None) == 2
    assert "not finite" in capsys.readouterr().err


def test_prompts_of_a_file_and_a_vision_language_model(evaluate, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a red cube on the left\na blue cat <b>bold</b>\n")
    with ChatServer(vision) as server:
        flags = {
            "prompts": "prompts.txt",
            "pairs": None,
            "scorers": "vlm",
            "judge_model": "m",
            "api_key_env": "NO_KEY",
        }
        results = evaluate(judge_base_url=server.url, **flags)
        asked = len(server.asked)
        assert evaluate(judge_base_url=server.url, **flags)["scores"] == results["scores"]
        assert len(server.asked) == asked  # every answer is kept
        questions = tmp_path / "out" / "questions.jsonl"
        questions.write_text(questions.read_text().replace("?", " now?", 1))
        capsys.readouterr()
        assert evaluate(judge_base_url=server.url, **flags) == 2
        assert "--questions_file asks other questions about 1 of the prompts" in capsys.readouterr().err
    assert asked == 2 + 2 * 2  # questions for two prompts, then four images
    assert [prompt["text"] for prompt in results["prompts"]] == ["a red cube on the left", "a blue cat <b>bold</b>"]
    assert {"vlm", "vlm/attribute", "vlm/spatial"} <= set(results["scores"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>bold</b>" not in page


def test_nothing_private_is_written(evaluate, tmp_path, runs):
    flags = {"num_pairs": 4, "scorers": "mine:brightness", "hub-token": "hf_secret123"}
    evaluate(models=[f"mine={runs / 'lora'}"], **flags)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"hf_secret123" not in content and str(tmp_path).encode() not in content, path
            assert str(runs).encode() not in content and os.path.expanduser("~").encode() + b"/" not in content, path


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"pairs": None}, "nothing would be measured; give --scorers, --pairs or both"),
        ({"scorers": "nonsense"}, "nonsense"),
        ({"models": ["base=x"]}, "models has two entries called 'base'"),
        ({"models": ["../up=x"]}, "cannot be a folder"),
        ({"models": ["no/such-folder/here"]}, "no/such-folder/here"),
        (
            {"models": ["nobody/nothing"]},
            "models names 'nobody/nothing', which is no folder, and the Hub cannot be reached",
        ),
        ({"sweep": "empty"}, "sweep 'empty' holds no checkpoint"),
        ({"sweep": "empty", "pairs": None, "scorers": "mine:brightness", "prompts": "p.txt"}, "metric rule needs"),
        ({"pairs": "no-such-folder/x"}, "pairs 'no-such-folder/x'"),
        ({"guidance_scales": [1, 1]}, "guidance_scales must be distinct"),
        ({"output_dir": "/proc/nowhere"}, "output_dir '/proc/nowhere' cannot be made"),
        ({"scorers": "mine:brightness", "resolution": 17}, "cannot render: `height` and `width`"),
        ({"pairs_split": "nonsense"}, "there is only train, not nonsense"),
        ({"resolution": -8}, "--resolution must be at least 1 and at most 16384, got -8"),
        ({"guidance_scales": "nan"}, "--guidance_scales must be at least 0, got nan"),
        ({"guidance_scales": [1, "inf"]}, "--guidance_scales must be at least 0, got inf"),
        ({"scorers": ["mine:colours", "mine:colours"]}, "--scorers must be distinct"),
        ({"promts": "x.txt"}, "there is no flag --promts; did you mean --prompts"),
        ({"config": "none.yaml"}, "--config"),
        ({"scheduler": "DDIMPipeline"}, "scheduler must be"),
        ({"retrieval_size": -1}, "--retrieval_size must be at least 0 and at most 100000, got -1"),
        ({"num_pairs": 0}, "--num_pairs must be at least 1 and at most 1000000, got 0"),
        ({"scheduler": "Nonsense"}, "scheduler must be"),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "does not go with the model's DDIMScheduler; use one of"),
        ({"image_column": "editor"}, "row 0: its image cannot be read"),
        ({"image_column": "principles"}, "image_column 'principles' holds no images but List(Value('string'))"),
        ({"scorers": "vlm"}, "the scorer vlm needs --judge_model"),
        ({"prompts": "none.txt", "scorers": "mine:brightness"}, "none.txt"),
        ({"pretrained_model_name_or_path": None}, "there is no model to evaluate"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(evaluate, capsys, flags, message):
    assert evaluate(**flags) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown and shown.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_two_processes_share_the_work_and_find_the_same(evaluate, tmp_path, pipe_dir, data_dir, runs):
    flags = {"models": [f"lora={runs / 'lora'}"], "scorers": "mine:brightness", "num_pairs": 5, "retrieval_size": 3}
    flags |= {"score_batch_size": 2}
    alone = evaluate("alone", **flags)
    given = {"pretrained_model_name_or_path": pipe_dir, "pairs": data_dir, "output_dir": tmp_path / "both"}
    started = start(2, as_flags(given | SMALL | flags), tmp_path / "said", EVALUATE, PYTHONPATH=str(tmp_path))
    assert finish(started) == [0, 0], said(tmp_path / "said")
    both = json.loads((tmp_path / "both" / "results.json").read_text())
    assert both["scores"] == alone["scores"] and both["prompts"] == alone["prompts"]
    for model in alone["models"]:
        for name, values in alone["preference"][model].items():
            ours, theirs = (np.array(found, float) for found in (both["preference"][model][name], values))
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6, nan_ok=True), name
    files = {path.name for path in (tmp_path / "both" / "scores").rglob("*.jsonl")}
    assert files == {"mine.brightness-0.jsonl", "mine.brightness-1.jsonl"}


def test_evaluation_changes_nothing_of_the_training(run_script, tmp_path, monkeypatch):
    """Not even with a scorer that draws random numbers."""
    (tmp_path / "drawing.py").write_text(
        "import random, numpy, torch\n"
        "def drawing(images, prompts):\n"
        "    return [random.random() + numpy.random.rand() + torch.rand(()).item() for _ in images]\n"
    )
    monkeypatch.chdir(tmp_path)
    flags = {"use_lora": True, "beta": 500, "max_train_steps": 3, "checkpointing_steps": 1, "train_batch_size": 4}
    flags |= {"lora_dropout": 0.2, "use_ema": True, "learning_rate": 1e-2}
    judged = {"eval_steps": 1, "eval_split": "train", "max_eval_samples": 2, "eval_inference_steps": 1}
    run_script(output_dir=tmp_path / "plain", **flags)
    run_script(output_dir=tmp_path / "judged", **flags, **judged, eval_scorers="drawing:drawing")
    plain, other = (load_file(tmp_path / name / "pytorch_lora_weights.safetensors") for name in ("plain", "judged"))
    assert all(torch.equal(plain[name], other[name]) for name in plain)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "training_log.jsonl").read_text().splitlines()]
        for name in ("plain", "judged")
    ]
    for row, other_row in zip(*logs, strict=True):
        assert "eval/drawing" in other_row
        assert {name: value for name, value in other_row.items() if not name.startswith("eval/")} == row


def test_the_best_checkpoint_is_kept_and_ends_the_run(run_script, tmp_path, capsys):
    """The learning rate is far too high: the error only grows, so the first checkpoint is best by it."""
    flags = {"loss_type": "sft", "max_train_steps": 4, "checkpointing_steps": 1, "checkpoints_total_limit": 1}
    flags |= {"eval_steps": 1, "eval_split": "train", "max_eval_samples": 4, "load_best_model_at_end": True}
    flags |= {"metric_for_best_model": "error/matched", "learning_rate": 0.3, "train_batch_size": 4}
    output = tmp_path / "best"
    run_script(output_dir=output, **flags)
    log = [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]
    best = min(log, key=lambda row: row["eval/error/matched"])["step"]
    assert best < 4 and [path.name for path in list_checkpoints(output)] == [f"checkpoint-{best}", "checkpoint-4"]
    ended = load_file(output / "unet" / "diffusion_pytorch_model.safetensors")
    wanted = load_file(output / f"checkpoint-{best}" / "model.safetensors")
    assert all(torch.equal(ended[name], wanted[name]) for name in wanted)
    assert f"| checkpoint-{best}" in (output / "README.md").read_text()


def test_without_an_admitted_checkpoint_the_last_weights_stay(run_script, tmp_path):
    """Nothing is learned at so small a rate, so the rule admits none; the last checkpoint that was judged is rotated away."""
    flags = {"use_lora": True, "learning_rate": 1e-30, "max_train_steps": 3, "checkpointing_steps": 1, "eval_steps": 2}
    flags |= {
        "checkpoints_total_limit": 1,
        "load_best_model_at_end": True,
        "eval_split": "train",
        "max_eval_samples": 3,
    }
    run_script(output_dir=tmp_path / "out", **flags)
    assert (tmp_path / "out" / "pytorch_lora_weights.safetensors").exists()
    assert [path.name for path in list_checkpoints(tmp_path / "out")] == ["checkpoint-3"]


def test_a_resumed_run_is_judged_as_one_that_never_stopped(run_script, runs, tmp_path):
    shutil.copytree(runs / "lora", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-3")
    (tmp_path / "cut" / "evaluation" / "implicit" / "checkpoint-3.safetensors").unlink()
    run_script(output_dir=tmp_path / "cut", **JUDGED, **KINDS["lora"], resume_from_checkpoint="checkpoint-2")
    for name in (
        "training_log.jsonl",
        "evaluation/implicit/base.safetensors",
        "evaluation/implicit/checkpoint-3.safetensors",
    ):
        assert (tmp_path / "cut" / name).read_bytes() == (runs / "lora" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"eval_steps": 0}, "eval_steps must be at least 1, got 0"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end needs --eval_steps"),
        (
            {"load_best_model_at_end": True, "eval_steps": 3, "checkpointing_steps": 2},
            "a multiple of --checkpointing_steps 2",
        ),
        ({"eval_steps": 1}, "eval_dataset_name"),
        ({"eval_steps": 1, "eval_split": "train", "metric_for_best_model": "x"}, "metric_for_best_model must be rule"),
        ({"eval_steps": 1, "eval_split": "train", "eval_scorers": "nonsense"}, "nonsense"),
    ],
)
def test_wrong_evaluation_flags_of_the_training_script(run_script, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        run_script(output_dir=tmp_path / "out", use_lora=True, max_train_steps=1, **flags)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
