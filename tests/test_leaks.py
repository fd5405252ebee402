"""What a run publishes names nobody and no place, and nothing that it leaves holds a token."""

import shutil
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - it looks for its cache in the home of the one who runs the tests
import pytest
from huggingface_hub.utils import filter_repo_objects
from PIL import Image

from diffusers_tpo.publish.hub import DATASET_IGNORED, MODEL_IGNORED
from diffusers_tpo.training.folder import CONFIG


USER, TOKEN = "marker-user", "hf_markertokenmarkertoken"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The home of a user whose name and token must not be found again."""
    folder = tmp_path / "home" / USER
    for name, value in {"USER": USER, "LOGNAME": USER, "HOME": str(folder), "HF_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)
    return folder


def texts_of(path: Path) -> bytes:
    """The name and the content of a file, and the texts that a picture may hide in compressed parts."""
    hidden = repr(Image.open(path).info).encode() if path.suffix in (".png", ".jpg") else b""
    return path.name.encode() + b"\n" + path.read_bytes() + hidden


def leaks(folder: Path, secrets: list[str], ignored: tuple[str, ...] = ()) -> list[str]:
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [folder / name for name in filter_repo_objects(names, ignore_patterns=list(ignored))]
    found = [(path, secret) for path in files for secret in secrets if secret.encode() in texts_of(path)]
    return [f"{path.relative_to(folder)}: {secret}" for path, secret in found]


def test_the_search_finds_what_is_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(f'{{"_name_or_path": "/home/{USER}/base"}}')
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    assert leaks(tmp_path, [USER, TOKEN]) == [f"a/config.json: {USER}"]


UNFINISHED = [
    ".partial-checkpoint-3/optimizer.bin",
    "data/.partial-train-00000.parquet",
    "unet/.partial-a/b.safetensors",
]
HIDDEN = [*UNFINISHED, ".git/config", ".cache/huggingface/token"]


@pytest.mark.parametrize(
    ("patterns", "kept", "left"),
    [
        (
            MODEL_IGNORED,
            ["README.md", "unet/model.safetensors"],
            ["checkpoint-2/a", "logs/events", "validation/0.png"],
        ),
        (DATASET_IGNORED, ["README.md", "data/train-00000.parquet"], ["work/00000.journal.jsonl", "preview.html"]),
    ],
    ids=["model", "data set"],
)
def test_what_is_unfinished_or_private_is_never_pushed(patterns, kept, left):
    """The patterns as the Hub's client reads them."""
    assert list(filter_repo_objects([*left, *kept, *HIDDEN], ignore_patterns=list(patterns))) == kept


@pytest.mark.parametrize("use_lora", [True, False], ids=["lora", "full"])
def test_no_token_in_anything_that_a_run_leaves_and_no_path_or_user_in_what_is_pushed(
    run_script, home, pipe_dir, data_dir, use_lora, caplog, capfd
):
    shutil.copytree(pipe_dir, home / "base")
    shutil.copytree(data_dir, home / "rows")
    output = home / "model"
    flags = {"pretrained_model_name_or_path": home / "base", "train_data_dir": home / "rows", "output_dir": output}
    flags |= {"use_lora": use_lora, "hub_token": TOKEN, "report_to": "tensorboard", "cache_dir": home / "cache"}
    flags |= {"pretrained_vae_model_name_or_path": home / "base" / "vae", "use_ema": True, "train_text_encoder": True}
    flags |= {"eval_steps": 1, "eval_split": "train", "eval_dataset_name": home / "rows", "max_eval_samples": 2}
    flags |= {"validation_prompt": "cat", "num_validation_images": 1, "validation_steps": 1}
    run_script(**flags, max_train_steps=1, checkpointing_steps=1)

    kinds = {path.suffix for path in output.rglob("*")}
    assert {".md", ".json", ".jsonl", ".png", ".pkl", ".safetensors", ".yml"} <= kinds
    assert leaks(output, [TOKEN]) == []
    assert leaks(output, [USER, str(home.parents[1]), str(Path(__file__).parents[1])], (*MODEL_IGNORED, CONFIG)) == []
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())
