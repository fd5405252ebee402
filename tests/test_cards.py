"""The card says what happened and nothing about the machine it happened on; a failed push loses nothing."""

import inspect
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import yaml
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard, constants
from huggingface_hub.utils import HFValidationError, validate_repo_id
from PIL import Image

from diffusers_tpo.errors import UserError
from diffusers_tpo.intervals import Interval
from diffusers_tpo.models.adapters import add_lora, save_lora
from diffusers_tpo.privacy import public_config
from diffusers_tpo.publish import hub
from diffusers_tpo.publish.curves import draw_training, running_mean
from diffusers_tpo.publish.model_card import (
    Card,
    Evaluation,
    Figure,
    Picture,
    Published,
    set_evaluation,
    training_facts,
    write_model_card,
)
from diffusers_tpo.publish.origins import Origin, dataset_origin, model_origin
from diffusers_tpo.show import as_text, markdown_table
from diffusers_tpo.training.validation import Validation, grid


HISTORY = [{"step": step, "loss": float(step), "reward/matched": 0.5} for step in range(1, 101)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE, DATA = Origin("user/base", licence={"license": "openrail++"}), Origin("user/data", commit=COMMIT)
FIGURES = [
    Figure("error/matched", Interval(0.5, 0.4, 0.6), Interval(0.4, 0.3, 0.5), Interval(-0.1, -0.2, 0.0)),
    Figure("reward/margin", None, Interval(0.2, 0.1, 0.3), None),
    Figure("implicit/accuracy/content", None, Interval(1, 1, 1), None),
    Figure("pick", None, Interval(float("nan"), 0, 0), None),
]


def card(folder, base=BASE, data=DATA, loss_type="tdpo", is_lora=True, **options):
    training = public_config({"loss_type": loss_type, "seed": 0, "anchor_weight": 0.0, "resolution": 512})
    training |= {"use_lora": True} if is_lora else {}
    facts = training_facts(0, 100, seconds=75, weights_of=100)
    metrics, model = options.pop("metrics", HISTORY), Published("me/model", "StableDiffusionPipeline")
    path = write_model_card(
        folder, model, Card(training, base, data if isinstance(data, list) else [data], facts, **options), metrics
    )
    text = path.read_text()
    return text, yaml.safe_load(text.split("---")[1])


def test_front_matter_and_figures(tmp_path):
    """The last 50 of the losses 1 to 100 are 51 to 100: mean 75.5."""
    text, data = card(tmp_path)
    assert data["base_model"] == "user/base" and data["datasets"] == ["user/data"]
    assert data["base_model_relation"] == "adapter" and data["license"] == "openrail++"
    assert {"text-preference-optimization", "lora"} <= set(data["tags"]) and "tpo" not in data["tags"]
    assert "| loss | 75.5 |" in text and "| reward/matched | 0.5 |" in text
    assert "| seed | 0 |" in text and "| anchor_weight | 0.0 |" in text
    assert f"[user/data](https://huggingface.co/datasets/user/data), commit `{COMMIT}`" in text
    assert "| optimizer steps | 100 |" in text and "| time | 0:01:15 (h:mm:ss)" in text
    assert 'load_lora_weights("me/model")' in text and "paper" in text and "torch 2" in text


def test_a_local_base_goes_by_the_names_that_its_user_gives(tmp_path):
    local = Origin("/a/b/c", revision="main", licence={"license": "openrail++"})
    text, data = card(tmp_path, base=local.called(["me/base"]))
    assert data["base_model"] == "me/base" and data["license"] == "openrail++" and "/a/b" not in text
    assert 'from_pretrained("me/base", dtype' in text  # no revision: that of the name is not known
    text, data = card(tmp_path, base=local.called(["me/distilled", "me/full"]))
    assert data["base_model"] == ["me/distilled", "me/full"] and data["base_model_relation"] == "adapter"
    assert 'from_pretrained("me/distilled", dtype' in text
    assert (
        "[me/distilled](https://huggingface.co/me/distilled), from [me/full](https://huggingface.co/me/full)" in text
    )
    assert local.called([]) is local


def test_several_data_sets_are_named_in_turn(tmp_path):
    text, data = card(tmp_path, data=[DATA, Origin("/a/b/c"), Origin("user/more")])
    assert data["datasets"] == ["user/data", "user/more"] and "/a/b" not in text
    assert (
        ", commit `" in text
        and " and a local data set and [user/more](https://huggingface.co/datasets/user/more)" in text
    )


def test_facts_of_a_resumed_run_that_ends_with_an_earlier_checkpoint():
    facts = training_facts(40, 100, seconds=3725, weights_of=80)
    assert facts["weights"] == "those of step 80" and facts["optimizer steps"] == 100
    assert facts["time"].startswith("1:02:05 ") and facts["time"].endswith("for the steps after 40")


def test_supervised_model_claims_no_preferences(tmp_path):
    text, data = card(tmp_path, loss_type="sft", is_lora=False)
    assert "text-preference-optimization" not in data["tags"] and "lora" not in data["tags"]
    assert "Text Preference" not in text and "reward/margin" not in text
    assert data["base_model_relation"] == "finetune" and 'from_pretrained("me/model"' in text


def test_no_local_path(tmp_path):
    text, data = card(tmp_path, base=Origin(str(tmp_path)), data=Origin(str(tmp_path / "rows")))
    assert str(tmp_path) not in text and "a local model" in text
    assert "base_model" not in data and "datasets" not in data and data["license_name"] == "see-base-model"
    config = {"dataset_name": str(tmp_path), "image_column": "image", "revision": None}
    config |= {"bnb_quantization_config_path": str(tmp_path / "bnb.json")}
    public = {"dataset_name": "a local data set", "image_column": "image"}
    assert public_config(config) == public | {"bnb_quantization_config_path": "a local configuration"}


def test_evaluation_replaces_the_warning(tmp_path):
    before, _ = card(tmp_path)
    set_evaluation(tmp_path, "Aligned: 50 %.")
    after = (tmp_path / "README.md").read_text()
    assert "Not evaluated" in before and "Not evaluated" not in after and "Aligned: 50 %." in after


def test_figures_with_intervals_stand_in_the_text_and_where_the_hub_reads_them(tmp_path):
    text, _ = card(tmp_path, evaluation=Evaluation("On 9 images.", "user/data", "test", "checkpoint-4", FIGURES))
    assert "Not evaluated" not in text and "On 9 images." in text
    assert "| error/matched             | 0.50 [0.40, 0.60] | 0.40 [0.30, 0.50]" in text
    results = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert [(result.metric_type, result.metric_value) for result in results] == [
        ("error/matched", 0.4),
        ("reward/margin", 0.2),
    ]
    assert results[0].dataset_type == "user/data" and results[0].dataset_split == "test"
    assert results[0].metric_name == "error/matched (95 % interval 0.3 to 0.5)"


# Licence and commit


def write_card(folder: Path, **front) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\n# A model\n")
    return folder


def put_in_cache(cache: Path, repo: str, **front) -> Path:
    """A repository as huggingface_hub keeps it after a download; `repo` starts with "models--" or "datasets--"."""
    (cache / repo / "refs").mkdir(parents=True)
    (cache / repo / "refs" / "main").write_text(COMMIT)
    snapshot = write_card(cache / repo / "snapshots" / COMMIT, **front)
    (snapshot / "model_index.json").write_text("{}")
    return snapshot


OWN = {
    "license": "other",
    "license_name": "flux-1-dev",
    "license_link": "https://huggingface.co/x/y/blob/main/LICENSE",
}


STRANGE = [
    {"license": 5},
    {"license": ["mit"]},
    {"license": "mit](https://evil.example) <b>x"},
    {"license": "other", "license_name": "<img src=x>"},
    {"license": "other", "license_name": {"a": 1}},
    {"license": "mit\nx"},
]


@pytest.mark.parametrize("front", STRANGE)
def test_a_licence_that_is_no_plain_name_is_not_known(tmp_path, front):
    write_card(tmp_path, **front)
    assert model_origin(str(tmp_path)).licence == {}


LINKS = [5, ["x"], "javascript:alert(1)", "http://example.org", "https://x.org/a) [b](c", "https://x.org/<b>", "a b"]


@pytest.mark.parametrize("link", LINKS)
def test_a_link_to_a_licence_that_is_none_is_left_out(tmp_path, link):
    put_in_cache(tmp_path, "models--user--base", **(OWN | {"license_link": link}))
    assert "license_link" not in model_origin("user/base", cache_dir=str(tmp_path)).licence


@pytest.mark.parametrize("front", [{"license": "apache-2.0"}, OWN])
def test_licence_of_a_local_base(tmp_path, front):
    base = model_origin(str(write_card(tmp_path / "base", **front)))
    _, data = card(tmp_path, base=base)
    assert {name: data.get(name) for name in OWN} == {name: front.get(name) for name in OWN}
    relative = write_card(tmp_path / "other", **(OWN | {"license_link": "../LICENSE"}))
    assert model_origin(str(relative)).licence == {"license": "other", "license_name": "flux-1-dev"}


@pytest.mark.parametrize("readme", [None, "no front matter", "---\n[\n---\n", "---\ntags: [a]\n---\n"])
def test_licence_of_a_local_base_that_names_none(tmp_path, readme):
    if readme:
        (tmp_path / "README.md").write_text(readme)
    assert model_origin(str(tmp_path)).licence == {}


def test_licence_and_commit_of_a_base_on_the_hub(tmp_path):
    put_in_cache(tmp_path / "cache", "models--user--base", **(OWN | {"license_link": "LICENSE.md"}))
    base = model_origin("user/base", cache_dir=str(tmp_path / "cache"))
    text, data = card(tmp_path, base=base)
    assert data["license"] == "other" and data["license_name"] == "flux-1-dev"
    assert data["license_link"] == f"https://huggingface.co/user/base/blob/{COMMIT}/LICENSE.md"
    assert f"[user/base](https://huggingface.co/user/base), commit `{COMMIT}`" in text


def test_a_base_whose_card_cannot_be_read_is_pointed_to(tmp_path):
    base = model_origin("user/base", revision="fp16", cache_dir=str(tmp_path / "cache"))
    text, data = card(tmp_path, base=base)
    assert base.commit is None and "commit" not in text.split("| data set")[0] and "revision `fp16`" in text
    assert data["license_name"] == "see-base-model" and data["license_link"] == "https://huggingface.co/user/base"
    assert 'from_pretrained("user/base", revision="fp16", dtype' in text


def test_commit_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    put_in_cache(tmp_path, "datasets--user--rows", license="mit")
    assert dataset_origin("user/rows") == Origin("user/rows", None, COMMIT)
    assert dataset_origin("user/rows", "v2") == Origin("user/rows", "v2")  # of which nothing is known
    assert dataset_origin(str(tmp_path), "v2") == Origin(str(tmp_path))


# Validation


KNOWN_LICENCES = {"apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "other"}


def errors_of(front: dict) -> list[str]:
    """What the Hub's rules for model cards say of a front matter, as far as they are documented."""
    errors = []
    if front.get("license") not in KNOWN_LICENCES:
        errors.append('"license" must be one of the known licences')
    if front.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", front.get("license_name", "")):
        errors.append('"license_name" is needed, in lower case')
    if not re.match(r"https?://|LICENSE", front.get("license_link", "LICENSE")):
        errors.append('"license_link" must be a URL')
    for name in [front.get("base_model", "a/b"), *front.get("datasets", [])]:
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            errors.append(str(error))
    if front.get("base_model_relation", "adapter") not in ("adapter", "finetune", "merge", "quantized"):
        errors.append('"base_model_relation" is unknown')
    if not all(isinstance(tag, str) for tag in front["tags"]) or front["pipeline_tag"] != "text-to-image":
        errors.append("tags must be texts")
    return errors


@pytest.fixture
def validator(monkeypatch):
    """A server that answers `validate()` of huggingface_hub, in the place of the Hub."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            errors = errors_of(yaml.safe_load(asked["content"].split("---")[1]))
            errors += [] if self.path == "/api/validate-yaml" and asked["repoType"] == "model" else ["wrong request"]
            self.send_response(400 if errors else 200)
            self.end_headers()
            self.wfile.write("; ".join(errors).encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(
    "ENDPOINT" not in inspect.getsource(ModelCard.validate),
    reason="an older client asks huggingface.co and nobody else",
)
@pytest.mark.parametrize("base", [BASE, Origin("user/base"), Origin("/a/b/c"), Origin("user/base", licence=OWN)])
def test_the_card_is_valid(tmp_path, validator, base):
    evaluation = Evaluation("On 9 images.", "/rows/of/mine", "test", "checkpoint-4", FIGURES)
    card(tmp_path, base=base, evaluation=evaluation, pictures=[Picture("a: b | c\n---\n# d", "x.jpg", "y.jpg")])
    loaded = ModelCard.load(tmp_path / "README.md")
    loaded.validate()
    loaded.data.license = "mine"
    with pytest.raises(ValueError, match="known licences"):
        loaded.validate()


# Texts, curves and images


def test_texts_are_shown_as_they_are():
    assert as_text("a *b* | <c>\n_d_ snake_case \x1b") == r"a \*b\* \| \<c\> \_d\_ snake_case " + "\u241b"


def test_markdown_table():
    assert markdown_table(["a", "long"], [["1", "2"]]) == "| a | long |\n| - | ---- |\n| 1 | 2    |"


def test_curves_are_the_same_for_the_same_log_and_say_nothing_else(tmp_path):
    rows = [{"step": step, "loss": 1 / step, "reward/margin": step / 9, "lr": 1} for step in range(1, 60)]
    rows[3] |= {"loss": float("nan"), "reward/accuracy": 1.0}
    draw_training(rows, tmp_path / "assets" / "a.png")
    draw_training(rows, tmp_path / "b.png")
    assert (tmp_path / "assets" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = Image.open(tmp_path / "b.png")
    assert image.size == (1170, 780) and image.info.keys() == {"dpi"}  # three panels on two lines
    draw_training(rows[:1], tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").size == (1170, 390)


def test_running_mean():
    values = np.array([1, 2, np.nan, 4, 6])
    assert running_mean(values, 2) == pytest.approx([1, 1.5, 2, 4, 5])


def test_grids_have_a_gap_and_enlarge_tiny_images():
    sheet = grid([Image.new("RGB", (32, 32), color) for color in ("red", "green", "blue")])
    assert sheet.size == (2 * 128 + 4, 2 * 128 + 4)
    assert sheet.getpixel((0, 0)) == (255, 0, 0) and sheet.getpixel((0, 132)) == (0, 0, 255)
    assert sheet.getpixel((130, 0)) == sheet.getpixel((132, 132)) == (255, 255, 255)
    assert grid([Image.new("RGB", (1024, 1024))]).size == (512, 512)


# Real runs


def run_snippet(text: str, base: str, repo: str, folder, also: int | None = None):
    """Runs the Python that a card shows first, and then that of the block number `also`, on a CPU and with the names of what lies on
    this disk. Both render the same noise."""
    first, *others = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = first if also is None else f"{first}\nseed.manual_seed(0)\n{others[also]}"
    for old, new in {'"path/to/the/base"': repr(base), f'"{repo}"': repr(str(folder)), '.to("cuda")': ""}.items():
        code = code.replace(old, new)
    code = code.replace("torch.float16", "torch.float32").replace(
        "prompt=", "num_inference_steps=2, generator=seed, prompt="
    )
    names = {"seed": torch.Generator().manual_seed(0)}
    exec(code, names)
    return names["image"]


def test_the_card_of_a_lora_run_shows_what_it_did(run_script, tmp_path, pipe_dir):
    flags = {"use_lora": True, "validation_prompt": "cat | *dog*", "num_validation_images": 2}
    flags |= {"hub_model_id": "me/model", "beta": 500, "learning_rate": 0.1, "validation_guidance_scale": 3.0}
    flags |= {"eval_steps": 1, "eval_split": "train", "max_eval_samples": 3, "output_dir": tmp_path}
    flags |= {"guide_with": "reference"}
    run_script(**flags, max_train_steps=1, checkpointing_steps=1)
    shown = tmp_path / "validation"
    assert (shown / "step-0" / "0-0.png").read_bytes() != (shown / "step-1" / "0-0.png").read_bytes()
    shutil.copy(shown / "step-0" / "0-1.png", shown / "step-0" / "0-0.png")  # a mark
    run_script(**flags, max_train_steps=2, resume_from_checkpoint="latest")
    assert sorted(path.name for path in shown.iterdir()) == ["step-0", "step-1", "step-2"]
    assert (shown / "step-0" / "0-0.png").read_bytes() == (shown / "step-0" / "0-1.png").read_bytes()  # not made anew

    text = (tmp_path / "README.md").read_text()
    assert r"| cat \| \*dog\* | ![by the base](assets/prompt-0-before.jpg) | ![by this model](assets/prompt-0-" in text
    assert "guidance\n3.0 with the base's answer to the empty prompt (see Guidance), seeds from 0, 16 pixels" in text
    assert "### Guidance" in text and "PEFT alone" in text and "| guidance/built_in " in text
    assert "In place of guidance 4 with the base: sample at" in text
    assert (
        "![Training curves](assets/curves.png)" in text
        and "eval/guidance/built_in" in (tmp_path / "training_log.jsonl").read_text()
    )
    assert "| rows of the data set | 8 |" in text and "| hardware | 1 x CPU |" in text and "Not evaluated" not in text
    assert "3 images of the split `train`" in text and "**The model was trained on these images.**" in text
    assert "No rendered image was judged." in text
    for name in re.findall(r"\]\((assets/.*?)\)", text):
        assert min(Image.open(tmp_path / name).size) >= 128 or name == "assets/curves.png"  # which stays white here
    assert ModelCard.load(tmp_path / "README.md").data.eval_results
    with_lora = run_snippet(text, pipe_dir, "me/model", tmp_path)
    without = run_snippet(text.replace("pipe.load_lora", "# "), pipe_dir, "me/model", tmp_path)
    assert with_lora.size == (tiny.RESOLUTION, tiny.RESOLUTION)
    assert np.abs(np.asarray(with_lora).astype(int) - np.asarray(without)).max() > 0


def test_the_card_of_a_preference_says_how_the_base_answers_the_empty_prompt(tmp_path, pipe_dir):
    """With this package or with PEFT alone it is the same image, and another one than without."""
    pipe = tiny.make_pipe()
    add_lora(pipe.unet, ("to_q", "to_v"), rank=2)
    with torch.no_grad():
        for name, parameter in pipe.unet.named_parameters():
            if "lora_B" in name:
                parameter.copy_(tiny.randn(*parameter.shape))
    save_lora(type(pipe), pipe.unet, "unet", tmp_path)
    model = Published("me/model", "StableDiffusionPipeline", unconditional="first half")
    told = Card({"loss_type": "tdpo", "seed": 0, "resolution": 16, "use_lora": True}, Origin(str(pipe_dir)), [DATA])
    text = write_model_card(tmp_path, model, told, HISTORY).read_text()
    plain, ours, hooked = (
        np.asarray(run_snippet(text, pipe_dir, "me/model", tmp_path, also)).astype(int) for also in (None, 0, 1)
    )
    assert np.abs(ours - hooked).max() <= 1 and np.abs(ours - plain).max() > 1


def test_the_card_of_a_full_model_loads_the_base_for_the_empty_prompt(tmp_path, pipe_dir):
    tiny.make_pipe(seed=1).save_pretrained(tmp_path)
    model = Published("me/model", "StableDiffusionPipeline", unconditional="first half")
    told = Card({"loss_type": "tkto", "seed": 0, "resolution": 16}, Origin(str(pipe_dir)), [DATA])
    text = write_model_card(tmp_path, model, told, HISTORY).read_text()
    assert "PEFT alone" not in text
    plain, ours = (
        np.asarray(run_snippet(text, pipe_dir, "me/model", tmp_path, also)).astype(int) for also in (None, 0)
    )
    assert np.abs(ours - plain).max() > 1


@pytest.mark.parametrize(
    ("changes", "unconditional"),
    [({"loss_type": "sft"}, "first half"), ({"null_keep": 1.0}, "first half"), ({}, None)],
    ids=["no preference", "the empty prompt was held", "a distilled model"],
)
def test_a_card_says_nothing_of_guidance_where_it_does_not_matter(tmp_path, changes, unconditional):
    training = {"loss_type": "tdpo", "seed": 0, "resolution": 16, "use_lora": True} | changes
    model = Published("me/model", "StableDiffusionPipeline", unconditional=unconditional)
    text = write_model_card(tmp_path, model, Card(training, BASE, [DATA]), HISTORY).read_text()
    assert "### Guidance" not in text and "guide_with_reference" not in text


def test_images_of_other_prompts_or_settings_are_not_taken_for_these(tmp_path):
    validation = Validation(["cat"], 1, 7.5, 16, 0)
    assert not validation.is_in(tmp_path / "step-0")
    validation.show([[Image.new("RGB", (16, 16))]], tmp_path / "step-0", [], 0)
    assert validation.is_in(tmp_path / "step-0")
    assert not Validation(["dog"], 1, 7.5, 16, 0).is_in(tmp_path / "step-0")
    assert not Validation(["cat"], 2, 7.5, 16, 0).is_in(tmp_path / "step-0")


def test_the_snippet_of_a_full_model_runs(tmp_path):
    tiny.make_pipe().save_pretrained(tmp_path)
    text, _ = card(tmp_path, is_lora=False)
    assert StableDiffusionPipeline.__name__ in text
    assert run_snippet(text, "", "me/model", tmp_path).size == (tiny.RESOLUTION, tiny.RESOLUTION)


def test_failed_push_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "weights").write_text("kept")

    def refuse(*args, **kwargs):
        raise ConnectionError("no route to the Hub")

    monkeypatch.setattr(hub.HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=f"no route to the Hub.*hf upload me/model {tmp_path}"):
        hub.push_folder(tmp_path, "me/model", token="hf_secret", attempts=1)
    assert (tmp_path / "weights").read_text() == "kept"
