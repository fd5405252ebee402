"""Every flag of both build scripts: a number outside its range, a folder that is none, and no nonsense gets through."""

import itertools
import os
import runpy
import sys
from pathlib import Path

import pytest
from conftest import as_flags

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError
from diffusers_tpo.flags import kinds_of


EXAMPLES = Path(__file__).parents[1] / "examples" / "text_preference"
CAPTIONS = Path(__file__).parent / "data" / "captions.txt"
GROUPS = {
    "build_negatives": ("SourceArguments", "EditArguments", "ChatArguments", "VerifyArguments", "OutputArguments"),
    "build_negatives_at_scale": ("EditArguments", "RunArguments"),
}
NEEDED = {"build_negatives": (), "build_negatives_at_scale": ("--input", "captions")}
HOSTILE = (
    "nan",
    "inf",
    "-inf",
    "-1",
    "-0.5",
    "0",
    "1",
    "0.5",
    "1000000000",
    "1e400",
    "9" * 5000,
    "x",
    "",
    "1,5",
    "None",
)

# The hostile values that a flag does take.
COUNTS = dict.fromkeys(
    ("num_negatives", "num_edits", "max_attempts", "rows_per_shard", "shapes_rows", "audit_sample", "batch_size")
    + ("concurrency", "tasks"),
    {"1"},
)
AT_LEAST_ONE = dict.fromkeys(
    ("max_samples", "max_tokens", "workers", "cpus_per_task", "mem_per_cpu_gb"), {"1", "1000000000"}
)
SHARES = dict.fromkeys(("max_changed_share", "max_blind_accuracy"), {"0", "0.5", "1"})
TAKEN = {
    **COUNTS,
    **AT_LEAST_ONE,
    **SHARES,
    "validation_share": {"0", "0.5"},
    "test_share": {"0", "0.5"},
    "near_similarity": {"0.5", "1"},
    "dry_run": {"1"},
    "preview": {"0", "1"},
    "max_retries": {"0", "1"},
    "seed": {"0", "1", "1000000000"},
    "max_length_ratio": {"1", "1000000000"},
    "timeout": {"0.5", "1", "1000000000"},
    "temperature": {"0", "0.5", "1", "1000000000"},
    "principle_weights": {"0", "0.5", "1", "1000000000"},
    "price_per_million_tokens": {"0", "0.5", "1", "1000000000"},
    "verify_price_per_million_tokens": {"0", "0.5", "1", "1000000000"},
}


def groups_of(script: str) -> list[type]:
    names = runpy.run_path(str(EXAMPLES / f"{script}.py"))
    return [names[name] for name in GROUPS[script]]


@pytest.mark.parametrize("script", GROUPS)
def test_no_number_outside_its_range_gets_through(script):
    groups = groups_of(script)
    kinds = {name: kind for group in groups for name, kind in kinds_of(group).items()}
    numbers = [name for name, kind in kinds.items() if kind.type in (int, float)]
    assert set(numbers) <= TAKEN.keys() and len(numbers) >= 9
    for name, value in itertools.product(numbers, HOSTILE):
        words = [*NEEDED[script], f"--{name}", value] if value[:1] != "-" else [*NEEDED[script], f"--{name}={value}"]
        try:
            parse_flags(*groups, argv=words)
        except UserError as error:
            assert value not in TAKEN[name] and f"--{name}" in str(error) and "\n" not in str(error)
        else:
            assert value in TAKEN[name], f"--{name} took {value}"


@pytest.mark.parametrize("script", GROUPS)
def test_a_choice_is_one_of_those_there_are(script):
    groups = groups_of(script)
    kinds = {name: kind for group in groups for name, kind in kinds_of(group).items()}
    choices = [name for name, kind in kinds.items() if kind.choices]
    assert {"editor", "principles"} <= set(choices)
    for name in choices:
        with pytest.raises(UserError, match=f"--{name} must be one of"):
            parse_flags(*groups, argv=[*NEEDED[script], f"--{name}", "nonsense"])


def run(script: str, capsys, monkeypatch, **flags) -> str:
    """The one sentence with which a script ends."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *as_flags(flags)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in error
    (sentence,) = [line for line in error.splitlines() if line.startswith("error: ")]
    return sentence


@pytest.fixture
def unusable(tmp_path) -> dict[str, str]:
    """Folders that are none, by kind."""
    (tmp_path / "file").write_text("kept")
    return {
        "a file": str(tmp_path / "file"),
        "inside a file": str(tmp_path / "file" / "out"),
        "the kernel's": "/proc/out",
        "a device": "/dev/null",
        "nobody's": str(tmp_path / ("x" * 300)),
    }


@pytest.mark.parametrize("kind", ["a file", "inside a file", "the kernel's", "a device", "nobody's"])
@pytest.mark.parametrize("script", GROUPS)
def test_a_folder_that_is_none_is_known_at_the_start(script, kind, unusable, tmp_path, capsys, monkeypatch):
    texts = {"captions_file": CAPTIONS}
    if script == "build_negatives_at_scale":
        pytest.importorskip("datatrove")
        (tmp_path / "captions").mkdir()
        (tmp_path / "captions" / "a.jsonl").write_text('{"prompt": "a cat"}\n')
        texts = {"input": tmp_path / "captions"}
    sentence = run(script, capsys, monkeypatch, **texts, editor="rules", output_dir=unusable[kind])
    assert sentence.startswith("error: --output_dir") and "choose another folder" in sentence
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"captions_file": "/dev/zero"}, "--captions_file '/dev/zero' must be an existing file"),
        ({"captions_file": "/dev/zero.txt"}, "--captions_file '/dev/zero.txt' must be an existing file"),
        ({"captions_file": CAPTIONS, "principles": ["content", "content"]}, "--principles must be different ones"),
        (
            {"captions_file": CAPTIONS, "principle_sampling": "weighted", "principle_weights": [0] * 4},
            "--principle_weights needs one number for each of the 4 principles, not all 0",
        ),
        ({"captions_file": CAPTIONS, "price_per_million_tokens": [1]}, "--price_per_million_tokens needs two numbers"),
        ({"captions_file": CAPTIONS, "join_images": "x"}, "--join_images needs --dataset_name"),
        (
            {"captions_file": CAPTIONS, "editor": "chat", "model": "m", "extra_body": "[" * 100_000},
            "--extra_body must",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else list(value)[-1],
)
def test_nonsense_is_one_sentence(flags, words, tmp_path, capsys, monkeypatch):
    flags = {"editor": "rules", "output_dir": tmp_path / "out"} | flags
    assert words in run("build_negatives", capsys, monkeypatch, **flags)


def test_a_folder_that_lost_its_disk_is_one_sentence(tmp_path, capsys, monkeypatch):
    """As on a file system that was mounted read-only: the kernel says so for every file."""
    from diffusers_tpo.negatives import journal

    def read_only(*_):
        raise OSError(30, os.strerror(30), str(tmp_path / "out" / "work"))

    monkeypatch.setattr(journal.Journal, "append", read_only)
    sentence = run(
        "build_negatives", capsys, monkeypatch, captions_file=CAPTIONS, editor="rules", output_dir=tmp_path / "out"
    )
    assert (
        "could not be read or written (Read-only file system)" in sentence and "what is complete is kept" in sentence
    )
