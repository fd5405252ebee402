"""Scorers of images: CLIP models built here, the exact verifier, the wiring of diffsynth, and functions of users."""

import itertools
import math
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, SiglipConfig, SiglipModel

from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.scorers import SCORERS, load_scorer
from diffusers_tpo.evaluation.scorers.clip import ClipScore, PickScore
from diffusers_tpo.evaluation.scorers.shapes import ShapesScorer
from diffusers_tpo.shapes.captions import parse_caption
from diffusers_tpo.shapes.images import render
from diffusers_tpo.shapes.scenes import (
    BACKGROUNDS,
    COLOURS,
    NUMBERS,
    OPPOSITE,
    POSITIONS,
    PRINCIPLES,
    SHAPES,
    SIZES,
    Group,
    Scene,
    mismatched_scene,
)
from diffusers_tpo.shapes.verify import verify
from diffusers_tpo.shapes.world import make_scenes


SIDE = 16
TOLERANCE = {"rel": 1e-4, "abs": 1e-4}
IMAGES = tiny.make_images(7)
PROMPTS = ["cat", "a red dog", "two cars", "a house by the sea", "x", "blue", "an owl"]

# The part of diffsynth 2.1.12 that packaged.py meets, with the same names, signatures and defaults; scores are made up.
DIFFSYNTH = """
from dataclasses import dataclass


@dataclass
class ModelConfig:
    path: str = None
    model_id: str = None
    origin_file_pattern: str = None
    download_source: str = None
    local_model_path: str = None
    skip_download: bool = None


class Metric:
    def __init__(self, device, **configs):
        self.device, self.configs, self.calls = device, configs, []

    def score(self, prompt, images):
        self.calls.append(len(images))
        return [len(text) + image.getpixel((0, 0))[0] for text, image in zip(prompt, images, strict=True)]


class HPSv2Metric(Metric):
    @classmethod
    def from_pretrained(cls, model_config=ModelConfig(), processor_config=ModelConfig(), torch_dtype=None, device="cuda",
                        processor_kwargs=None, vram_limit=None):
        return cls(device, weights=model_config, rest=processor_config)


class HPSv3Metric(Metric):
    @classmethod
    def from_pretrained(cls, model_config=ModelConfig(), processor_config=ModelConfig(), torch_dtype="bfloat16", device="cuda",
                        score_index=0, use_special_tokens=True, max_pixels=256 * 28 * 28, min_pixels=256 * 28 * 28,
                        processor_kwargs=None, vram_limit=None):
        return cls(device, weights=model_config, rest=processor_config)


class ImageRewardMetric(Metric):
    @classmethod
    def from_pretrained(cls, model_config=ModelConfig(), tokenizer_config=ModelConfig(), torch_dtype=None, device="cuda",
                        max_length=35, tokenizer_kwargs=None, vram_limit=None):
        return cls(device, weights=model_config, rest=tokenizer_config)


class AestheticMetric(Metric):
    @classmethod
    def from_pretrained(cls, model_config=ModelConfig(), processor_config=ModelConfig(), torch_dtype=None, device="cuda",
                        processor_kwargs=None, vram_limit=None):
        return cls(device, weights=model_config, rest=processor_config)

    def score(self, images):
        self.calls.append(len(images))
        return [float(image.getpixel((0, 0))[0]) for image in images]
"""


def make_clip(folder, model: bool = True, processor: bool = True) -> str:
    """Saves a CLIP model for 16x16 images and prompts of 24 tokens."""
    tokenizer = tiny.make_tokenizer()
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": tiny.TOKENS, **layers, **special}
    vision = {"image_size": SIDE, "patch_size": 8, **layers}
    if model:
        with torch.random.fork_rng():
            torch.manual_seed(2)
            whole = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
            for parameter in whole.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.5)  # so that cosines differ and have both signs
        whole.save_pretrained(folder)
    if processor:
        tokenizer.save_pretrained(folder)
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
            folder
        )
    return str(folder)


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory) -> str:
    return make_clip(tmp_path_factory.mktemp("scorers") / "clip")


@pytest.fixture(scope="session")
def own_logits(clip_dir) -> list[float]:
    """What the CLIP model itself says about every pair, one at a time: scale times cosine."""
    model = CLIPModel.from_pretrained(clip_dir)
    processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(clip_dir), tiny.make_tokenizer())
    with torch.no_grad():
        pairs = zip(IMAGES, PROMPTS, strict=True)
        inputs = [processor(text=[prompt], images=[image], return_tensors="pt") for image, prompt in pairs]
        return [model(**one).logits_per_image.item() for one in inputs]


def forget_modules(*names: str) -> None:
    """Lets the next import read these modules from their files."""
    for module in [module for module in sys.modules if module.split(".")[0] in names]:
        del sys.modules[module]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module into the current folder and loads one of its functions as a scorer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(code: str, function: str = "score"):
        (tmp_path / "my_scorers.py").write_text(code)
        return load_scorer(f"my_scorers:{function}")

    yield load
    forget_modules("my_scorers", "my_constant", "my_package", "my_broken")


@pytest.fixture
def put_diffsynth(tmp_path, monkeypatch):
    """Writes a package of that name and lets it be imported."""

    def put(code: str) -> None:
        forget_modules("diffsynth")
        (tmp_path / "diffsynth").mkdir()
        (tmp_path / "diffsynth" / "__init__.py").touch()
        (tmp_path / "diffsynth" / "metrics.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)

    yield put
    forget_modules("diffsynth")


def test_the_names_of_scorers():
    assert list(SCORERS) == ["clip", "pickscore", "hpsv2", "hpsv3", "imagereward", "aesthetic", "shapes"]


# CLIPScore and PickScore


def test_clip_score_is_the_positive_part_of_the_cosine_in_percent(clip_dir, own_logits):
    scale = CLIPModel.from_pretrained(clip_dir).logit_scale.exp().item()
    expected = [max(100 * logit / scale, 0) for logit in own_logits]
    scorer = ClipScore(clip_dir)
    assert scorer(IMAGES, PROMPTS) == {"clip": pytest.approx(expected, **TOLERANCE)}
    assert 0 < sum(score == 0 for score in expected) < len(expected)  # both sides of the clamp are seen
    assert scorer.kinds == {"clip": "adherence"}


def test_pick_score_is_the_scaled_cosine(clip_dir, own_logits, tmp_path):
    model = make_clip(tmp_path / "model", processor=False)
    scorer = PickScore(model, processor=clip_dir)
    assert scorer(IMAGES, PROMPTS) == {"pickscore": pytest.approx(own_logits, **TOLERANCE)}
    assert min(own_logits) < 0 and scorer.kinds == {"pickscore": "adherence"}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_no_score(clip_dir, batch_size):
    whole, parts = ClipScore(clip_dir), ClipScore(clip_dir, batch_size=batch_size)
    assert parts(IMAGES, PROMPTS)["clip"] == pytest.approx(whole(IMAGES, PROMPTS)["clip"], **TOLERANCE)


def test_no_images_have_no_scores(clip_dir):
    assert ClipScore(clip_dir)([], []) == {"clip": []}


def test_long_prompts_are_cut_at_the_end_of_the_text_encoder(clip_dir):
    score = PickScore(clip_dir, clip_dir)
    words = tiny.TOKENS - 2  # besides the tokens for start and end
    long, just, shorter = score(IMAGES[:1] * 3, ["a " * 60, "a " * words, "a " * (words - 1)])["pickscore"]
    assert long == pytest.approx(just, **TOLERANCE) and abs(long - shorter) > 1e-3


def test_images_of_any_mode_and_size_are_judged(clip_dir):
    grey = IMAGES[0].resize((40, 24)).convert("L")
    score = PickScore(clip_dir, clip_dir)
    first, second, third = score([grey, grey.convert("RGB"), grey.convert("RGBA")], ["cat"] * 3)["pickscore"]
    assert first == pytest.approx(second, **TOLERANCE) and first == pytest.approx(third, **TOLERANCE)


def test_half_precision_weights_compute_in_single_precision(clip_dir, tmp_path):
    folder = make_clip(tmp_path / "half")
    CLIPModel.from_pretrained(clip_dir).half().save_pretrained(folder)
    similarity = ClipScore(folder).similarity
    assert {parameter.dtype for parameter in similarity.model.parameters()} == {torch.float32}
    assert similarity(IMAGES, PROMPTS).dtype == torch.float32


def test_the_default_checkpoints_are_named_when_they_cannot_be_loaded(tmp_path):
    with pytest.raises(
        UserError, match="scorer 'clip' cannot load its model 'openai/clip-vit-large-patch14' [(].+[)]$"
    ):
        load_scorer("clip", cache_dir=tmp_path)
    with pytest.raises(UserError, match="scorer 'pickscore' .+ 'laion/CLIP-ViT-H-14-laion2B-s32B-b79K'"):
        load_scorer("pickscore", cache_dir=tmp_path)


def test_named_scorers_take_their_models_from_the_cache_folder(clip_dir, own_logits, tmp_path):
    """A cache as the Hub's client leaves it, where the tiny model stands for each of the large ones."""
    for name in (
        "openai/clip-vit-large-patch14",
        "yuvalkirstain/PickScore_v1",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ):
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        shutil.copytree(clip_dir, folder / "snapshots" / ("0" * 40))
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
    assert load_scorer("clip", cache_dir=tmp_path)(IMAGES, PROMPTS) == ClipScore(clip_dir)(IMAGES, PROMPTS)
    scores = load_scorer("pickscore", cache_dir=tmp_path)(IMAGES, PROMPTS)
    assert scores == {"pickscore": pytest.approx(own_logits, **TOLERANCE)}


def test_pick_score_names_its_default_model(clip_dir, tmp_path):
    with pytest.raises(UserError, match="scorer 'pickscore' cannot load its model 'yuvalkirstain/PickScore_v1'"):
        PickScore(processor=clip_dir, cache_dir=tmp_path)


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    folder = make_clip(tmp_path / "pickled")
    weights = CLIPModel.from_pretrained(folder).state_dict()
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load its model '.+pickled' .+safetensors"):
        ClipScore(folder)


def test_a_model_without_its_tokenizer_is_refused(tmp_path):
    folder = make_clip(tmp_path / "bare", processor=False)
    CLIPImageProcessorPil().save_pretrained(folder)
    with pytest.raises(UserError, match="needs a tokenizer of 514 tokens"):
        ClipScore(folder)


def test_a_model_without_all_weights_is_refused(clip_dir, tmp_path):
    folder = make_clip(tmp_path / "half")
    config = Path(folder, "config.json").read_text()
    CLIPModel.from_pretrained(clip_dir).text_model.save_pretrained(folder)
    Path(folder, "config.json").write_text(config)
    with pytest.raises(UserError, match="needs a whole CLIP model, and '.+half' lacks .+ of its weights, such as"):
        ClipScore(folder)


def test_a_model_of_another_type_is_refused(tmp_path):
    folder = make_clip(tmp_path / "siglip", model=False)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config=layers | {"vocab_size": 514, "bos_token_id": 0, "eos_token_id": 1, "projection_size": 16},
        vision_config=layers | {"image_size": SIDE, "patch_size": 8},
    )
    SiglipModel(config).save_pretrained(folder)
    with pytest.raises(UserError, match="scorer 'clip' needs a CLIP model, and '.+' is of type 'siglip'"):
        ClipScore(folder)


# diffsynth


@pytest.mark.parametrize("name", ["hpsv2", "hpsv3", "imagereward", "aesthetic"])
def test_a_missing_diffsynth_says_which_extra_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffsynth", None)
    with pytest.raises(
        UserError, match=r"^the package 'diffsynth.metrics' is missing.+pip install 'diffusers_tpo\[scorers\]'"
    ):
        load_scorer(name)


@pytest.mark.parametrize(
    ("name", "class_name", "folder"),
    [
        ("hpsv2", "HPSv2Metric", "HPSv2"),
        ("hpsv3", "HPSv3Metric", "HPSv3"),
        ("imagereward", "ImageRewardMetric", "ImageReward"),
        ("aesthetic", "AestheticMetric", "Aesthetic"),
    ],
)
def test_diffsynth_gets_its_files_and_every_image_with_its_prompt(name, class_name, folder, put_diffsynth, tmp_path):
    """Against a package with diffsynth's signatures, since diffsynth itself needs torchvision and downloads."""
    put_diffsynth(DIFFSYNTH)
    scorer = load_scorer(name, device="cpu", cache_dir=tmp_path / "models")
    metric = scorer.scorer.metric
    assert type(metric).__name__ == class_name and metric.device == "cpu"
    for part, pattern in (("weights", f"{folder}/model.safetensors"), ("rest", f"{folder}/")):
        config = metric.configs[part]
        assert (config.model_id, config.origin_file_pattern) == ("DiffSynth-Studio/ImageMetrics", pattern)
        assert config.local_model_path == tmp_path / "models"
    images = [Image.new("RGB", (4, 4), (7 * i, 0, 0)) for i in range(11)]
    prompts = ["x" * (i % 5) for i in range(11)]
    reads = name != "aesthetic"
    assert scorer(images, prompts) == {name: [7 * i + reads * (i % 5) for i in range(11)]}
    assert metric.calls == [8, 3]
    assert scorer.kinds == {name: "adherence" if reads else "aesthetics"}


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('operator torchvision::nms does not exist\\nand more')",
        DIFFSYNTH.replace("return cls(device", "raise TimeoutError('operator torchvision::nms does not exist')\n#"),
    ],
    ids=["broken installation", "failed download"],
)
def test_what_diffsynth_cannot_load_is_one_sentence(code, put_diffsynth):
    put_diffsynth(code)
    sentence = (
        "scorer 'hpsv2' cannot load its model 'DiffSynth-Studio/ImageMetrics/HPSv2' "
        "(operator torchvision::nms does not exist)"
    )
    with pytest.raises(UserError) as caught:
        load_scorer("hpsv2")
    assert str(caught.value) == sentence


# the embedded world


def test_every_scene_is_read_back_from_its_caption():
    groups = [Group(*facts) for facts in itertools.product(NUMBERS, SIZES, COLOURS, SHAPES, POSITIONS)]
    single = [(group,) for group in groups]
    pairs = [
        (first, second)
        for first, second in itertools.product(groups, groups)
        if first.position == OPPOSITE[second.position] and first.count + second.count <= 3
    ]
    scenes = [Scene(found, ground) for found in single + pairs for ground in BACKGROUNDS]
    scenes = [scene for scene in scenes if scene.is_valid()]
    assert len(scenes) == 4 * (360 + 8640)
    assert all(parse_caption(scene.caption()) == scene for scene in scenes)


def test_the_shapes_scorer_gives_what_the_verifier_says():
    rng = random.Random(0)
    scenes = make_scenes(40, seed=0)
    pixels = [render(scene, rng) for scene in scenes]
    pixels[0] = np.zeros_like(pixels[0])  # without objects nothing is clean
    edits = zip(scenes, itertools.cycle([*PRINCIPLES, None]), strict=False)
    asked = [principle and mismatched_scene(rng, scene, principle) or scene for scene, principle in edits]
    scorer = load_scorer("shapes")
    scores = scorer([Image.fromarray(image) for image in pixels], [scene.caption() for scene in asked])
    facts = [verify(image, scene) for image, scene in zip(pixels, asked, strict=True)]
    assert scores == {f"shapes/{name}": [float(row[name]) for row in facts] for name in facts[0]}
    assert all(0 < sum(column) < len(scenes) for column in scores.values())
    kinds = dict.fromkeys(scores, "adherence") | {"shapes/clean": "aesthetics"}
    assert scorer.kinds == kinds and len(kinds) == 6


def test_the_shapes_scorer_sees_colours_in_any_mode():
    scene = make_scenes(1, seed=3)[0]
    image = Image.fromarray(render(scene, random.Random(0)))
    scores = ShapesScorer()([image.convert("RGBA"), image.convert("P")], [scene.caption()] * 2)
    assert set(itertools.chain(*scores.values())) == {1.0}


@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a cat",
        "",
        "a small red circle on the left at night, oil painting",
        "a small red circles on the left at night",
        "three large red circles on the left at night",
        "a small red circle on the left and a small blue circle on the right at night",
        "a small red circle on the left and at night",
    ],
)
def test_a_prompt_of_another_world_is_named(prompt):
    with pytest.raises(UserError, match="is no caption of the shapes world") as caught:
        ShapesScorer()([Image.new("RGB", (32, 32))], [prompt])
    assert repr(prompt) in str(caught.value)


def test_images_of_another_size_are_named():
    images = [Image.new("RGB", (32, 32)), Image.new("RGB", (32, 64))]
    with pytest.raises(UserError, match="takes images of 32x32 pixels, got 32x64 for image 1$"):
        ShapesScorer()(images, ["a small red circle on the left at night"] * 2)


# functions of users


@pytest.mark.parametrize(
    ("code", "scores"),
    [
        ("def score(images, prompts): return [0.5] * len(images)", {"score": [0.5] * 3}),
        ("def score(images, prompts): return [len(p) for p in prompts]", {"score": [1.0, 2.0, 3.0]}),
        ("def score(images, prompts): return [i.width > 1 for i in images]", {"score": [1.0] * 3}),
        ("import numpy\ndef score(images, prompts): return numpy.arange(3)", {"score": [0.0, 1.0, 2.0]}),
        ("import torch\ndef score(images, prompts): return torch.ones(3)", {"score": [1.0] * 3}),
        ("import numpy\ndef score(i, p): return [numpy.float32(0.5)] * 3", {"score": [0.5] * 3}),
        (
            "def score(images, prompts): return {'sharp': [1, 2, 3], 'my/dark': (3, 2, 1)}",
            {"sharp": [1.0, 2.0, 3.0], "my/dark": [3.0, 2.0, 1.0]},
        ),
        (
            "class Judge:\n    def __call__(self, images, prompts): return [2.0] * 3\nscore = Judge()",
            {"score": [2.0] * 3},
        ),
    ],
)
def test_a_function_of_the_user_scores(own, code, scores):
    scorer = own(code)
    assert scorer(IMAGES[:3], ["a", "bb", "ccc"]) == scores
    assert all(type(value) is float for column in scorer(IMAGES[:3], ["a", "bb", "ccc"]).values() for value in column)
    assert scorer.kinds == dict.fromkeys(scores, "adherence")


def test_a_function_may_import_its_neighbours_when_it_is_called(own, tmp_path):
    (tmp_path / "my_constant.py").write_text("VALUE = 4.0")
    scorer = own("def score(images, prompts):\n    from my_constant import VALUE\n    return [VALUE] * len(images)")
    assert scorer(IMAGES[:2], PROMPTS[:2]) == {"score": [4.0, 4.0]}


def test_a_function_may_lie_in_a_package(own, tmp_path):
    own("score = print")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "deep.py").write_text("def bright(images, prompts): return [1.0]")
    assert load_scorer("my_package.deep:bright")(IMAGES[:1], ["a"]) == {"bright": [1.0]}


def test_what_could_not_be_judged_is_nan(own):
    first, second, third = own("def score(i, p): return [None, float('nan'), 1]")(IMAGES[:3], PROMPTS[:3])["score"]
    assert math.isnan(first) and math.isnan(second) and third == 1.0


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("[0.5]", "a list of 2 numbers for 'score', one per image, got 1 of them$"),
        ("[0.5] * 3", "got 3 of them$"),
        ("0.5", "got float$"),
        ("None", "got NoneType$"),
        ("'ab'", "got str$"),
        ("numpy.float64(1)", "got float64$"),
        ("numpy.ones((2, 1))", "got list for image 0$"),
        ("['1', '2']", "got str for image 0$"),
        ("[1.0, [2.0]]", "got list for image 1$"),
        ("[torch.ones(2), 1]", "got Tensor for image 0$"),
        ("[1j, 1]", "got complex for image 0$"),
        ("[1.0, float('inf')]", "got inf for image 1; use nan where there is no score"),
        ("[-float('inf'), 1]", "got -inf for image 0"),
        ("{'sharp': [1.0, 2.0], 'dark': [1.0]}", "numbers for 'dark', one per image, got 1 of them$"),
        ("{'sharp': 1.0}", "for 'sharp', one per image, got float$"),
        ("{}", r"name its metrics by strings, got the keys \[\]$"),
        ("{1: [1.0, 2.0]}", r"name its metrics by strings, got the keys \[1\]$"),
    ],
)
def test_an_answer_that_is_no_number_per_image_is_refused(own, answer, problem):
    scorer = own(f"import numpy, torch\ndef score(images, prompts): return {answer}")
    with pytest.raises(UserError, match="^scorer 'my_scorers:score' must .*" + problem):
        scorer(IMAGES[:2], PROMPTS[:2])


def test_metrics_that_change_between_calls_are_refused(own):
    scorer = own("def score(images, prompts): return {p: [1.0] for p in prompts}")
    scorer(IMAGES[:1], ["sharp"])
    with pytest.raises(UserError, match="the same metrics in every call, got dark after sharp"):
        scorer(IMAGES[:1], ["dark"])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("my_missing:score", "module 'my_missing' of scorer 'my_missing:score' cannot be imported [(]No module named"),
        ("my_scorers.deep:score", "module 'my_scorers.deep' .+ cannot be imported"),
        ("my_scorers:other", "names no function of 'my_scorers'; define 'other' in .+my_scorers.py"),
        ("my_scorers:VALUE", "must be a function that takes [(]images, prompts[)], got int"),
        ("my_broken:score", "cannot be imported [(]No module named 'my_dependency'[)]"),
        ("my_scorers", "one of clip, pickscore, .+, or your own function as 'my_package.module:function', got 'my_"),
        ("clipp", "one of clip, pickscore, .+ got 'clipp'"),
        ("", "got ''"),
        ("my_scorers:", "got 'my_scorers:'"),
        (":score", "got ':score'"),
        (".my_scorers:score", "got '.my_scorers:score'"),
        ("folder/my_scorers.py:score", "got 'folder/my_scorers.py:score'"),
        ("my_scorers:score:more", "got 'my_scorers:score:more'"),
    ],
)
def test_a_scorer_that_is_not_there_is_named(own, tmp_path, name, problem):
    (tmp_path / "my_broken.py").write_text("import my_dependency")
    own("VALUE = 1\ndef score(images, prompts): return [1.0]")
    with pytest.raises(UserError, match=problem):
        load_scorer(name)


def test_mistakes_in_the_users_own_code_keep_their_traceback(own):
    scorer = own("def score(images, prompts): return [1 / 0]")
    with pytest.raises(ZeroDivisionError):
        scorer(IMAGES[:1], PROMPTS[:1])


def test_answers_of_named_scorers_are_checked_too(monkeypatch):
    scorer = load_scorer("shapes")
    monkeypatch.setattr(scorer, "scorer", lambda images, prompts: {"shapes/aligned": [math.inf]})
    with pytest.raises(UserError, match="scorer 'shapes' must give .+ got inf for image 0"):
        scorer(IMAGES[:1], PROMPTS[:1])
