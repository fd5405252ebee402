"""Checks of everything that goes through the Hub, against the loopback one. `test_hub.py` runs this file as a program."""

import json
import os
import re
import runpy
import shlex
import sys
import zipfile
from pathlib import Path

from hub_server import Fault, HubServer


WRITE, READ = "hf_loopbackWriteToken", "hf_loopbackReadToken"
HUB = HubServer({WRITE: ("user", "write"), READ: ("user", "read")})
if __name__ == "__main__":
    HOME = Path(sys.argv[1])
    os.environ |= {"HF_ENDPOINT": HUB.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_TOKEN": WRITE}
    os.environ |= {"HF_HOME": str(HOME / "cache"), "HF_UPDATE_DOWNLOAD_COUNTS": "0", "NO_PROXY": "127.0.0.1"}
    sys.modules["hub_checks"] = sys.modules["__main__"]  # for pytest it is this module, with this server

import PIL.Image  # noqa: E402
import pyarrow  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from conftest import SCRIPT, as_flags  # noqa: E402
from datasets import Image, load_dataset  # noqa: E402
from diffusers import DiffusionPipeline  # noqa: E402
from huggingface_hub.cli.hf import main as hf  # noqa: E402
from pyarrow.parquet import write_table  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from diffusers_tpo.data.rows import load_rows  # noqa: E402
from diffusers_tpo.decoding import decode_image  # noqa: E402
from diffusers_tpo.errors import BadRow, UserError  # noqa: E402
from diffusers_tpo.image_files import files_of  # noqa: E402
from diffusers_tpo.publish import hub  # noqa: E402


BUILD = SCRIPT.with_name("build_negatives.py")
LORA = "pytorch_lora_weights.safetensors"
NEGATIVES, BASE = "user/hpsd-tpo-negatives", "user/tiny"
GIVEN = ".gitattributes"  # what a new repository holds
COMMIT = "POST /api/models/user/model/commit"


@pytest.fixture(autouse=True)
def no_faults():
    HUB.faults.clear()
    HUB.asked.clear()
    yield
    assert not any(fault.times for fault in HUB.faults if fault.times < 50), "a fault never happened"


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds that were waited, if anybody had."""
    seconds = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small model with what must stay at home."""
    for name in (
        "README.md",
        "unet/model.safetensors",
        "logs/events",
        "checkpoint-1/model.safetensors",
        ".partial-a/b",
    ):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(name)
    HUB.repos.pop(("models", "user/model"), None)
    HUB.stored.clear()
    return tmp_path / "model"


def push(folder, **options) -> str:
    return hub.push_folder(folder, "user/model", WRITE, **options)


def commits() -> int:
    """Those of the repository after its first."""
    return len(HUB.repos["models", "user/model"].commits) - 1


def content_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("README.md", "unet/model.safetensors")}


def pushed(branch: str = "main") -> dict[str, bytes]:
    return {name: content for name, content in HUB.files("user/model", branch).items() if name != GIVEN}


@pytest.fixture
def run_command(monkeypatch):
    """Runs the command of an error, as a user would paste it."""

    def run(sentence: str) -> None:
        words = shlex.split(sentence[sentence.index("hf upload") :])
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            hf()
        assert not ended.value.code

    return run


# Pushing a folder


def test_a_push_is_one_commit_without_what_only_the_making_needed(folder):
    assert push(folder) == f"{HUB.url}/user/model"
    assert pushed() == content_of(folder) and commits() == 1
    push(folder)
    assert commits() == 1  # nothing had changed


def test_a_busy_hub_is_asked_again_with_growing_waits(folder, waits, caplog):
    HUB.faults += [Fault(COMMIT, times=2), Fault("preupload", status=500), Fault("repos/create", status=502)]
    push(folder)
    assert pushed() == content_of(folder) and commits() == 1 and HUB.count(COMMIT) == 3
    assert [seconds for seconds in waits if seconds >= hub.FIRST_WAIT] == [4, 8, 16]
    assert "the Hub failed (Server error '503 Service Unavailable'" in caplog.text


def test_a_page_of_a_gateway_is_no_end(folder, waits):
    HUB.faults.append(Fault("validate-yaml", status=502))
    push(folder)
    assert waits == [4] and commits() == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "17"}, 17), ({"RateLimit": '"api";r=0;t=55'}, 55), ({"Retry-After": "9" * 5000}, 300)],
)
def test_the_hub_says_how_long_to_wait(folder, waits, headers, seconds):
    HUB.faults.append(Fault(COMMIT, status=429, headers=headers))
    push(folder)
    assert waits == [seconds] and commits() == 1


@pytest.mark.parametrize("cut", ["before", "upload", "after"])
def test_a_connection_cut_during_the_commit_leaves_one_commit(folder, waits, cut):
    HUB.faults.append(Fault(COMMIT, cut=cut))
    push(folder)
    assert waits == [4] and commits() == 1 and pushed() == content_of(folder)


def test_a_connection_cut_half_way_through_a_file_sends_it_again(folder, waits):
    HUB.faults.append(
        Fault("PUT /storage", times=8, cut="upload")
    )  # the client tries six times in a row, and gives up
    push(folder)
    assert hub.FIRST_WAIT in waits and commits() == 1 and pushed() == content_of(folder)
    assert HUB.count("PUT /storage") == 9


def test_a_push_that_fails_for_good_names_the_command_that_repeats_it(folder, waits, run_command):
    odd = folder.rename(folder.with_name("my model; rm -rf"))
    HUB.faults.append(Fault(COMMIT, times=99))
    with pytest.raises(UserError) as failed:
        push(odd, private=True, revision="trial", ignored=("unet/*.json",))
    assert HUB.count(COMMIT) == hub.ATTEMPTS and waits == [4, 8, 16, 32]
    sentence = str(failed.value)
    assert "503" in sentence and "\n" not in sentence and WRITE not in sentence
    HUB.faults.clear()
    run_command(sentence)
    assert pushed("trial") == content_of(odd) and pushed() == {}
    assert HUB.repos["models", "user/model"].private


@pytest.mark.parametrize("status", [401, 403, 404, 412])
def test_a_refusal_is_not_repeated(folder, waits, status):
    HUB.faults.append(Fault(COMMIT, status=status))
    with pytest.raises(UserError, match=f"{status} .*hf upload user/model"):
        push(folder)
    assert not waits and HUB.count(COMMIT) == 1


def test_a_hub_that_repeats_the_token_gives_nothing_away(folder, waits, caplog):
    echo = {"X-Error-Message": f"no: {WRITE}"}
    HUB.faults += [Fault(COMMIT, status=503, headers=echo), Fault(COMMIT, status=403, headers=echo)]
    with pytest.raises(UserError, match=r"no: \*\*\*") as refused:
        push(folder)
    HUB.faults.append(Fault("whoami", status=403, headers=echo))
    with pytest.raises(UserError, match=r"no: \*\*\*") as unknown:
        hub.own_name("model", WRITE)
    assert WRITE not in f"{caplog.text} {refused.value} {unknown.value}"


def test_a_branch_is_made_where_it_is_missing(folder):
    push(folder, revision="trial")
    push(folder, revision="trial")
    assert pushed("trial") == content_of(folder) and pushed() == {}


def test_a_repository_that_exists_is_taken_but_no_public_one_for_private_files(folder):
    push(folder)
    (folder / "README.md").write_text("new")
    push(folder)
    assert pushed()["README.md"] == b"new"
    with pytest.raises(UserError, match="user/model exists and is public"):
        push(folder, private=True)


def test_a_repository_of_somebody_else_is_refused(folder):
    with pytest.raises(UserError, match="403 Forbidden.*under other.*hf upload other/model"):
        hub.push_folder(folder, "other/model", WRITE)


def test_a_smaller_data_set_replaces_a_larger_one(tmp_path, waits, run_command):
    folders = [tmp_path / str(shards) for shards in (3, 2, 1)]
    for shards, folder in zip((3, 2, 1), folders, strict=True):
        (folder / "data").mkdir(parents=True)
        for shard in range(shards):
            (folder / "data" / f"train-{shard}-of-{shards}.parquet").write_text(f"{shard} of {shards}")
    for folder in folders[:2]:
        hub.push_folder(folder, "user/rows", WRITE, repo_type="dataset")
    assert HUB.files("user/rows", kind="datasets").keys() == {GIVEN, *(f"data/train-{i}-of-2.parquet" for i in (0, 1))}
    HUB.faults.append(Fault("datasets/user/rows/commit", times=99))
    with pytest.raises(UserError) as failed:
        hub.push_folder(folders[2], "user/rows", WRITE, repo_type="dataset")
    HUB.faults.clear()
    run_command(str(failed.value))
    assert HUB.files("user/rows", kind="datasets").keys() == {GIVEN, "data/train-0-of-1.parquet"}


# Tokens


def test_the_name_of_a_repository_comes_from_the_token(waits):
    HUB.faults.append(Fault("whoami"))
    assert hub.own_name("model", WRITE) == "user/model" and waits == [4]
    assert hub.own_name("team/model", WRITE) == "team/model"


def test_tokens_and_names_that_cannot_push_are_refused_at_once(monkeypatch, waits):
    with pytest.raises(UserError, match="needs a valid token .*Invalid user token"):
        hub.own_name("model", "hf_wrong")
    with pytest.raises(UserError, match="this one only reads"):
        hub.own_name("model", READ)
    with pytest.raises(UserError, match="cannot name a repository 'my model'"):
        hub.own_name("my model", WRITE)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="needs a valid token .*hf auth login"):
        hub.own_name("model", None)
    assert not waits


def test_a_hub_that_is_out_of_reach_is_named_as_such(waits):
    HUB.faults.append(Fault("whoami", times=99, cut="before"))
    with pytest.raises(UserError, match="does not reach the Hub .*disconnected"):
        hub.own_name("model", WRITE)
    assert len(waits) == hub.ATTEMPTS - 1


# The scripts


@pytest.fixture
def build(monkeypatch, tmp_path):
    def run(**flags):
        flags = {"shapes_rows": 8, "editor": "shapes", "preview": 1, "output_dir": tmp_path / "negatives"} | flags
        monkeypatch.setattr(sys, "argv", [str(BUILD), *as_flags(flags)])
        runpy.run_path(str(BUILD), run_name="__main__")
        return tmp_path / "negatives"

    return run


@pytest.fixture
def train(run_script, tmp_path, pipe_dir):
    """Three steps on the model and the data of the Hub."""
    hub.push_folder(Path(pipe_dir), BASE, WRITE, revision="v1")
    hub.push_folder(Path(pipe_dir), BASE, WRITE)
    flags = {"pretrained_model_name_or_path": BASE, "train_data_dir": None, "dataset_name": NEGATIVES}
    flags |= {"max_train_steps": 3, "checkpointing_steps": 1, "train_batch_size": 2, "output_dir": tmp_path / "model"}
    flags["on_bad_row"] = "skip"  # the tiny tokenizer cuts some captions before they differ
    return lambda **more: run_script(**flags | {"push_to_hub": True} | more)


@pytest.fixture
def negatives(build):
    if ("datasets", NEGATIVES) not in HUB.repos:
        build(push_to_hub=True, hub_dataset_id=NEGATIVES, hub_private=True)


def assert_no_token(output: Path) -> None:
    """Neither on disk nor on the Hub."""
    files = [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    files += [
        content for repo in HUB.repos.values() for commit in repo.commits.values() for content in commit.values()
    ]
    assert files and not any(WRITE.encode() in content for content in files)


def assert_same_weights(pipe, other) -> None:
    ours, theirs = pipe.unet.state_dict(), other.unet.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_negatives_set_is_pushed_with_its_card_and_loaded(build):
    output = build(push_to_hub=True, hub_dataset_id=NEGATIVES, hub_private=True, hub_token=WRITE)
    files = HUB.files(NEGATIVES, kind="datasets")
    assert "README.md" in files and "audit.json" in files and HUB.repos["datasets", NEGATIVES].private
    assert not any(re.search("work/|preview|partial", name) for name in files)
    HUB.faults.append(Fault(r"GET .*\.parquet", cut="download"))
    rows = load_dataset(NEGATIVES, split="train")
    local = load_dataset(str(output), split="train")
    assert rows["negative_prompts"] == local["negative_prompts"] and rows.features == local.features
    streamed = list(load_dataset(NEGATIVES, split="train", streaming=True))
    assert [row["prompt"] for row in streamed] == list(rows["prompt"])
    assert streamed[0]["image"].tobytes() == rows[0]["image"].tobytes()
    build(push_to_hub=True, hub_dataset_id=NEGATIVES, hub_revision="second")  # nothing is built again
    assert HUB.files(NEGATIVES, "second", "datasets").keys() == files.keys()
    assert_no_token(output)


def test_a_lora_is_pushed_with_every_checkpoint_and_loaded(train, negatives, tmp_path, caplog):
    HUB.faults.append(Fault("commit/trial"))  # the first push of three fails
    where = {"hub_model_id": "lora", "hub_private_repo": True, "hub_revision": "trial", "hub_token": WRITE}
    train(
        use_lora=True, use_ema=True, hub_strategy="every_save", report_to="tensorboard", logging_dir="boards", **where
    )
    assert "training goes on" in caplog.text and HUB.count("commit/trial") == 3
    repo = HUB.repos["models", "user/lora"]
    assert repo.private and HUB.files("user/lora").keys() == {GIVEN}
    saved = [files for files in repo.commits.values() if LORA in files]
    assert len(saved) == 2 and saved[0][LORA] != saved[1][LORA]
    output, files = tmp_path / "model", HUB.files("user/lora", "trial")
    assert files.keys() == {
        GIVEN,
        "README.md",
        LORA,
        "training_recipe.json",
        "training_log.jsonl",
        "assets/curves.png",
    }
    assert files[LORA] == (output / LORA).read_bytes() and list((output / "boards").rglob("events*"))
    assert f"datasets:\n- {NEGATIVES}" in files["README.md"].decode() and BASE in files["README.md"].decode()
    loading = f'load_lora_weights("user/lora", weight_name="{LORA}", revision="trial")'
    assert loading in files["README.md"].decode()
    pipe, local = DiffusionPipeline.from_pretrained(BASE), DiffusionPipeline.from_pretrained(BASE)
    pipe.load_lora_weights("user/lora", weight_name=LORA, revision="trial")
    local.load_lora_weights(output)
    assert_same_weights(pipe, local)
    assert_no_token(output)


def test_a_full_pipeline_is_pushed_and_loaded(train, negatives, tmp_path):
    options = {
        "loss_type": "tkto",
        "streaming": True,
        "use_ema": True,
        "max_train_steps": 2,
        "hub_model_id": "user/full",
    }
    train(**options, revision="v1", dataset_revision="main")
    assert 'from_pretrained("user/full"' in HUB.files("user/full")["README.md"].decode()
    assert not any(re.search("checkpoint|partial|logs", name) for name in HUB.files("user/full"))
    pipe = DiffusionPipeline.from_pretrained("user/full")
    assert_same_weights(pipe, DiffusionPipeline.from_pretrained(tmp_path / "model"))
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red cube", num_inference_steps=1, output_type="np").images.shape[0] == 1


def test_a_failed_push_loses_no_run_and_repeats_no_training(train, negatives, tmp_path, capsys, waits, run_command):
    HUB.faults.append(Fault("user/late/commit", times=99))
    with pytest.raises(SystemExit) as stopped:
        train(use_lora=True, hub_model_id="late")
    assert stopped.value.code == 2
    sentence = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")][-1]
    output = tmp_path / "model"
    log, weights = (output / "training_log.jsonl").read_text(), load_file(output / LORA)
    assert len(log.splitlines()) == 3
    HUB.faults.clear()
    run_command(sentence)
    assert HUB.files("user/late")[LORA] == (output / LORA).read_bytes()
    HUB.repos.pop(("models", "user/late"))

    train(use_lora=True, hub_model_id="late", resume_from_checkpoint="latest")  # the same command again only pushes
    assert (output / "training_log.jsonl").read_text() == log
    assert HUB.files("user/late")[LORA] == (output / LORA).read_bytes()
    again = load_file(output / LORA)
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_a_wrong_token_ends_a_run_before_it_trains(train, negatives, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(use_lora=True, hub_token=READ)
    assert "error: --push_to_hub needs a token that may write" in capsys.readouterr().err
    assert not (tmp_path / "model" / "training_log.jsonl").exists()


def test_a_private_set_without_a_token_is_one_sentence(refused, negatives, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    wanted = {"train_data_dir": None, "dataset_name": NEGATIVES, "cache_dir": tmp_path / "nothing downloaded before"}
    assert f"dataset_name '{NEGATIVES}' with split 'train' cannot be loaded" in refused(**wanted)


# Images of data sets on the Hub


def images_of(repo: str, tmp_path, streaming: bool) -> list[str]:
    """What becomes of the rows: the red of each image, or why it cannot be read."""
    rows = load_rows(repo, streaming=streaming, cache_dir=str(tmp_path / f"cache-{streaming}"), token=WRITE)
    rows, told = rows.cast_column("image", Image(decode=False)), []
    for number, row in enumerate(rows):
        try:
            told.append(str(decode_image(row["image"], number, files_of(repo, WRITE)).getpixel((0, 0))[0]))
        except BadRow as error:
            told.append(str(error))
    return sorted(told)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["images", "archive", "paths"])
def test_images_of_a_data_set_of_the_hub_are_its_own(form, streaming, tmp_path):
    """As files, in an archive, and as paths in a table: a file of this machine, one of another repository, and its own."""
    folder, repo = tmp_path / "set", f"user/pictures-{form}-{streaming}"
    folder.mkdir()
    lines = [json.dumps({"file_name": f"{red}.png", "prompt": f"red {red}"}) for red in (10, 20, 30)]
    for red in (10, 20, 30):
        PIL.Image.new("RGB", (8, 8), (red, 0, 0)).save(folder / f"{red}.png")
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    if form == "archive":
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            for path in (*folder.glob("*.png"), folder / "metadata.jsonl"):
                archive.write(path, path.name)
                path.unlink()
    if form == "paths":
        paths = [
            str(folder / "10.png"),
            "hf://datasets/user/pictures-images-False/20.png",
            f"hf://datasets/{repo}/30.png",
        ]
        cells = [{"bytes": None, "path": path} for path in paths]
        form_of_cells = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        table = pyarrow.table({"image": pyarrow.array(cells, form_of_cells), "prompt": ["a"] * 3})
        (folder / "data").mkdir()
        write_table(table, folder / "data" / "train-00000-of-00001.parquet")
        (folder / "metadata.jsonl").unlink()
    hub.push_folder(folder, repo, WRITE, "dataset")
    told = images_of(repo, tmp_path, streaming)
    if form == "paths":
        assert told[0] == "30"
        assert all("may name only its own files" in reason for reason in told[1:]) and len(told) == 3
    else:
        assert told == ["10", "20", "30"]


def test_flags_of_the_hub_need_push_to_hub(refused):
    assert "--hub_strategy needs --push_to_hub" in refused(hub_strategy="every_save")
    assert "--hub_private_repo needs --push_to_hub" in refused(hub_private_repo=True)
    assert "--hub_revision needs --push_to_hub" in refused(hub_revision="trial")


if __name__ == "__main__":
    with HUB:
        settings = [
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:hypothesispytest",
            f"--basetemp={HOME / 'tests'}",
        ]
        sys.exit(pytest.main([__file__, *settings, *sys.argv[2:]]))
