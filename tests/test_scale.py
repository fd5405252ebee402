"""Building at scale, run as users run it: datatrove's local executor, a real chat server on this machine, real kills."""

import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import pyarrow
import pytest
from chat_server import MODEL, ChatServer, good, refused
from conftest import as_flags
from filelock import FileLock
from pyarrow import parquet

from diffusers_tpo import negatives
from diffusers_tpo.errors import UserError
from diffusers_tpo.negatives import scale
from diffusers_tpo.negatives.dataset import TEXT_FEATURES, stream_texts
from diffusers_tpo.negatives.rules.editor import RulesEditor
from diffusers_tpo.negatives.work import Plan


SCRIPT = Path(__file__).parents[1] / "examples" / "text_preference" / "build_negatives_at_scale.py"
KEY = "sk-a-secret-that-stays-in-the-environment"
FILES = 3


@pytest.fixture(scope="module")
def captions() -> dict[str, str]:
    lines = (Path(__file__).parent / "data" / "captions.txt").read_text(encoding="utf-8").splitlines()
    return {f"key-{number}": line for number, line in enumerate(dict.fromkeys(filter(str.isascii, lines[:240])))}


@pytest.fixture(scope="module")
def inputs(captions, tmp_path_factory) -> dict[str, Path]:
    """The same captions as three parquet files with a column of images, and as three files of JSON lines."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [{"id": key, "caption": caption, "image": b"not wanted"} for key, caption in captions.items()]
    for number in range(FILES):
        part = rows[number::FILES]
        for name in ("parquet", "jsonl"):
            (folder / name).mkdir(exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(part), folder / "parquet" / f"{number}.parquet")
        lines = [json.dumps({"id": row["id"], "caption": row["caption"]}) + "\n" for row in part]
        (folder / "jsonl" / f"{number}.jsonl").write_text("".join(lines))
    return {name: folder / name for name in ("parquet", "jsonl")}


@pytest.fixture
def flags(inputs, tmp_path) -> dict:
    folders = {"input": inputs["parquet"], "output_dir": tmp_path / "out"}
    return folders | {"caption_column": "caption", "key_column": "id", "editor": "rules", "workers": 1}


@pytest.fixture
def run(monkeypatch, flags):
    """Runs the script in this process, with one worker."""

    def run(**changes) -> Path:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *as_flags(flags | changes)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return Path((flags | changes)["output_dir"])

    return run


@pytest.fixture
def chat_flags(flags, monkeypatch):
    """What a run with a chat server needs besides `base_url`."""
    monkeypatch.setenv("TEST_API_KEY", KEY)
    return {"editor": "chat", "model": MODEL, "api_key_env": "TEST_API_KEY", "concurrency": 4}


def failed_keys(folder: Path) -> list[str]:
    return [row["key"] for _, row in scale.read_failed(folder)]


def assert_complete(folder: Path, captions: dict[str, str]) -> None:
    """Every caption is in the data or among the failed ones, once, and the data have the columns of our data sets."""
    rows = list(stream_texts(folder))
    assert Counter([row["key"] for row in rows] + failed_keys(folder)) == Counter(captions.keys())
    assert all(row["prompt"] == captions[row["key"]] for row in rows)
    assert all(len(row["negative_prompts"]) == len(row["principles"]) == len(row["num_edits"]) > 0 for row in rows)
    files = str(folder / "data" / "*.parquet")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train")
    assert loaded.features == datasets.Features(TEXT_FEATURES) and len(loaded) == len(rows) > 0
    assert not list(folder.rglob(".partial-*"))


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def assert_fails(capsys, run, **changes) -> str:
    """The run ends with exit code 2 and one sentence, which is returned."""
    with pytest.raises(SystemExit) as exit:
        run(**changes)
    sentence = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert exit.value.code == 2 and len(sentence) == 1
    return sentence[0]


@pytest.mark.slow
def test_two_workers_and_more_tasks_than_files(run, captions, capsys):
    folder = run(workers=2, tasks=4)
    assert_complete(folder, captions)
    assert 0 < len(failed_keys(folder)) < len(captions)
    assert sorted(path.name for path in (folder / "logs" / "completions").iterdir()) == [f"0000{n}" for n in range(4)]
    assert {row["editor"] for row in stream_texts(folder)} == {"rules"}
    assert len(datasets.load_dataset(str(folder), split="train")) == len(list(stream_texts(folder)))

    before = {path: time for path, time in snapshot(folder).items() if path.name != "files.txt"}
    run(tasks=4)
    assert before.items() <= snapshot(folder).items()
    assert f"{len(list(stream_texts(folder)))} rows are in" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_what_is_drawn_depends_on_keys_and_not_on_tasks_or_formats(kind, inputs, run, captions, tmp_path):
    one = run(input=inputs["parquet"], tasks=1, output_dir=tmp_path / "one")
    three = run(input=f"file://{inputs[kind]}", output_dir=tmp_path / "three")
    assert_complete(three, captions)
    assert len(list((three / "data").iterdir())) == FILES
    rows = [{row["key"]: row for row in stream_texts(folder)} for folder in (one, three)]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_repeats_no_answered_request(flags, chat_flags, run, captions):
    with ChatServer(lambda asked: good(asked).after(0.1)) as server:
        chat_flags |= {"base_url": server.url}
        command = [sys.executable, str(SCRIPT), *as_flags(flags | chat_flags | {"workers": 2})]
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while len(server.asked) < 60 and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        folder = flags["output_dir"]
        answered = sum(len(path.read_bytes().splitlines()) for path in folder.rglob("*.journal.jsonl"))
        assert 40 < answered < len(captions) and not list(folder.rglob("completions/*"))

        time.sleep(0.2)  # the server ends what was in flight
        asked = Counter(json.dumps(asked.body) for asked in server.asked)
        server.behaviour = good
        run(**chat_flags)
        assert_complete(folder, captions)
        repeated = Counter(json.dumps(asked.body) for asked in server.asked[asked.total() :]) & asked
        assert answered + repeated.total() == asked.total() and repeated.total() <= 8  # two tasks with 4 requests each
        assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    assert_no_key(folder)


def assert_no_key(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5 and not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_the_key_is_in_no_log_when_a_task_fails(flags, chat_flags, run):
    """The logger of datatrove shows the values of variables in tracebacks, unless it is told not to."""
    with ChatServer(lambda asked: refused(401)) as server, pytest.raises((SystemExit, Exception)):
        run(**chat_flags, base_url=server.url)
    logs = "".join(path.read_text() for path in flags["output_dir"].rglob("task_*.log"))
    assert "Traceback" in logs
    assert_no_key(flags["output_dir"])


@pytest.mark.slow
def test_rows_without_an_answer_are_listed_and_can_be_asked_again(flags, chat_flags, run, captions, capsys):
    silent = list(captions.values())[5]

    def mostly_good(asked):
        return refused(400) if asked.caption == silent else good(asked)

    with ChatServer(mostly_good) as server:
        folder = run(**chat_flags, base_url=server.url)
        assert_complete(folder, captions)
        [(task, row)] = [(task, row) for task, row in scale.read_failed(folder) if row["unanswered"]]
        assert row["prompt"] == silent and "400" in row["reason"]
        first, server.behaviour = len(server.asked), good
        run(**chat_flags, base_url=server.url, retry_failed="false")
        assert len(server.asked) == first  # the task is finished
        run(**chat_flags, base_url=server.url)
        assert {asked.caption for asked in server.asked[first:]} == {silent}
    assert_complete(folder, captions)
    assert not [row for _, row in scale.read_failed(folder) if row["unanswered"]]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for the commands of Slurm; `sbatch` only keeps the scripts."""
    commands = {
        "sbatch": f'cat "${{@: -1}}" >> {tmp_path}/submitted; echo Submitted batch job 7',
        "srun": 'while [[ $1 != launch_* ]]; do shift; done; exec "$@"',
        "scontrol": "echo localhost",
    }
    (tmp_path / "bin").mkdir()
    for name, script in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "submitted"


@pytest.mark.slow
def test_slurm_gets_a_job_whose_task_works(slurm, chat_flags, flags, run, captions):
    limits = {"partition": "cpu", "time": "1:00:00", "mem_per_cpu_gb": 3, "cpus_per_task": 2, "workers": 40}
    options = {"slurm_options": json.dumps({"qos": "low", "sbatch_args": {"account": "mine"}})}
    with ChatServer(good) as server:
        folder = run(**chat_flags, base_url=server.url, executor="slurm", tasks=1, **limits, **options)
        script = slurm.read_text()
        for line in ("partition=cpu", "time=1:00:00", "mem-per-cpu=3G", "array=0-0%40", "qos=low", "account=mine"):
            assert f"#SBATCH --{line}\n" in script
        assert KEY not in script and not (folder / "data").exists()
        job = os.environ | {"SLURM_ARRAY_TASK_ID": "0", "SLURM_NODELIST": "localhost", "RUN_OFFSET": "0"}
        launched = folder / "logs" / "launch_script.slurm"
        done = subprocess.run(["bash", launched], env=job, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_complete(folder, captions)
    assert_no_key(folder)


def test_ray_gets_the_same_pipeline_and_a_logger_that_shows_no_values(tmp_path):
    script = runpy.run_path(str(SCRIPT))
    run = script["RunArguments"](executor="ray", workers=3)
    executor = script["make_executor"]([], 5, str(tmp_path), run)
    assert (executor.tasks, executor.workers, executor.mem_per_cpu_gb) == (5, 3, 4)
    assert executor.ray_remote_kwargs == {"runtime_env": {"env_vars": {"LOGURU_DIAGNOSE": "NO"}}}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"input": "/no/such/folder"}, ["input", "/no/such/folder"]),
        ({"input": "strange://captions"}, ["input", "strange://captions"]),
        ({"caption_column": "text"}, ["caption_column", "'text'", "id, caption, image"]),
        ({"caption_column": "image"}, ["caption_column", "strings", "not wanted"]),
        ({"key_column": "name"}, ["key_column", "'name'"]),
        ({"principles": ["content", "colour"]}, ["principles", "colour"]),
        ({"num_edits": 0}, ["num_edits", "at least 1"]),
        ({"editor": "chat"}, ["--model"]),
        ({"editor": "chat", "model": MODEL, "api_key_env": "NO_SUCH_KEY"}, ["api_key_env", "NO_SUCH_KEY"]),
        ({"editor": "chat", "model": MODEL, "base_url": "http://me:word@gpu/v1"}, ["base_url", "password"]),
        ({"editor": "chat", "model": MODEL, "extra_body": "[1]"}, ["extra_body", "JSON"]),
        ({"executor": "slurm"}, ["sbatch", "--partition"]),
        pytest.param(
            {"executor": "ray"},
            ["datatrove[ray]"],
            marks=pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is there"),
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_one_sentence(changes, words, run, capsys):
    sentence = assert_fails(capsys, run, **changes)
    assert all(word in sentence for word in words), sentence
    assert "word@" not in sentence


def test_slurm_options_must_fit(slurm, run, capsys):
    slurm_flags = {"executor": "slurm", "partition": "cpu", "time": "1:00", "slurm_options": '{"nodes": 3}'}
    assert "'nodes'" in assert_fails(capsys, run, **slurm_flags)


def test_a_run_goes_on_only_with_the_same_tasks_and_files(inputs, run, flags, capsys, tmp_path):
    folder = tmp_path / "growing"
    folder.mkdir()
    part = inputs["parquet"] / "0.parquet"
    (folder / "0.parquet").write_bytes(part.read_bytes())
    run(input=folder)
    assert "tasks was 1 and is 2" in assert_fails(capsys, run, input=folder, tasks=2)
    (folder / "1.parquet").write_bytes(part.read_bytes())
    assert "files was" in assert_fails(capsys, run, input=folder, tasks=1)


def test_a_task_that_another_process_works_on_is_left_alone(run, flags, capsys):
    lock = flags["output_dir"] / "work" / "00001" / "lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert "task 1" in assert_fails(capsys, run)
    run()


def test_a_missing_datatrove_is_one_sentence(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datatrove.pipeline.base", None)
    monkeypatch.delitem(sys.modules, "diffusers_tpo.negatives.scale")
    monkeypatch.delattr(negatives, "scale")
    assert "diffusers_tpo[scale]" in assert_fails(capsys, run)


def edit_documents(folder: Path, documents, **options) -> list:
    edits = scale.MismatchedPrompts(RulesEditor, Plan(), folder, **options)
    return list(scale.ParquetShards(folder, rows_per_shard=3).run(edits.run(iter(documents), rank=2), rank=2))


def test_blocks_and_shards_are_cut_to_size(tmp_path):
    documents = [scale.Document("a red cat on a sofa", "same") for _ in range(7)] + [scale.Document(" ", "empty")]
    done = edit_documents(tmp_path, documents, block_size=5)
    assert [document.id for document in done] == ["same"] * 7  # a key that comes twice costs no row
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        f"train-00002-0000{n}.parquet" for n in range(3)
    ]
    assert sorted(path.name for path in (tmp_path / "work" / "00002").glob("*.jsonl")) == [
        "00000.journal.jsonl",
        "00001.journal.jsonl",
    ]
    [(task, failed)] = scale.read_failed(tmp_path)
    assert (task, failed["key"], failed["reason"]) == (2, "empty", "the caption is empty")


def test_rows_without_caption_or_key(tmp_path):
    table = pyarrow.table({"id": [1, None, 3], "caption": ["a cat", "a dog", None], "word": [None, "a", ""]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert scale.CaptionFiles(str(tmp_path), "caption").sample(10) == ["a cat", "a dog", " "]
    keys = [document.id for document in scale.CaptionFiles(str(tmp_path), "caption").reader().run()]
    assert keys == ["a.parquet/0", "a.parquet/1", "a.parquet/2"]
    with pytest.raises(UserError, match="row 1 of a.parquet has none"):
        scale.CaptionFiles(str(tmp_path), "caption", "id").sample(10)
    parquet.write_table(table.slice(0, 0), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="holds no rows"):
        scale.CaptionFiles(str(tmp_path), "caption").sample(10)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="'a.parquet' of input cannot be read"):
        scale.CaptionFiles(str(tmp_path), "caption")


def test_files_are_chosen_by_pattern_and_of_one_format(tmp_path):
    for name in ("train-1.jsonl", "train-2.jsonl", "test-1.jsonl", "notes.txt"):
        (tmp_path / name).write_text('{"caption": "a cat"}\n')
    assert scale.CaptionFiles(str(tmp_path), "caption", None, "train-*").paths == ["train-1.jsonl", "train-2.jsonl"]
    (tmp_path / "train-3.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="jsonl and parquet"):
        scale.CaptionFiles(str(tmp_path), "caption")
