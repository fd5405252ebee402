"""Attacks on what meets a stranger's input first, counted by kind: `python tests/trials.py` writes the table of SECURITY.md.

An outcome is *right* where the input is taken for the data that it is, a *clear error* where one sentence says what is wrong, and a *fault* in
every other case: a traceback, a sentence that does not name the flag or the row, an answer that should have been refused, a wait.
"""

import datetime
import inspect
import io
import os
import random
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from diffusers_tpo.commands.parsing import Parser, read_config
from diffusers_tpo.commands.scripts import SCRIPTS
from diffusers_tpo.data.rows import Columns
from diffusers_tpo.data.texts import check_text
from diffusers_tpo.decoding import decode_image
from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.scorers.vlm import read_verdicts
from diffusers_tpo.flags import kinds_of
from diffusers_tpo.negatives.answers import read_answer
from diffusers_tpo.negatives.asking import Wanted
from diffusers_tpo.negatives.build import build
from diffusers_tpo.negatives.checks import check_edit
from diffusers_tpo.negatives.dataset import Source, stream_texts
from diffusers_tpo.negatives.shapes import ShapesEditor
from diffusers_tpo.negatives.work import Plan
from diffusers_tpo.shapes.world import make_scenes
from diffusers_tpo.tables import Table, write_tables


ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "text_preference"
KEPT = ROOT / "docs" / "results" / "trials.json"
SECONDS = 60  # a trial that takes longer is a fault
LONGEST = 2000  # characters of a sentence
Trial = Callable[[], bool]  # whether what came back is right

NEEDED = {  # what a command must be given, and a value that it takes
    "train": "--pretrained_model_name_or_path model --dataset_name data --max_train_steps 1",
    "negatives": "--dataset_name data --editor rules",
    "negatives-at-scale": "--input captions --editor rules",
    "evaluate": "--pretrained_model_name_or_path model --pairs shapes",
}
VALUES = ("nan", "-1", "1e400", "", "\0")


def flags() -> Iterator[Trial]:
    """Every flag of every command with every hostile value, as far as it is looked at before anything is loaded."""
    groups_of = runpy.run_path(str(ROOT / "docs" / "flags.py"))["groups_of"]
    for command, needed in NEEDED.items():
        path = FOLDER / SCRIPTS[command]
        groups, check = groups_of(path), runpy.run_path(str(path))["check_arguments"]
        parser, number = Parser(tuple(groups), None), len(inspect.signature(check).parameters)

        def look(words: list[str], parser=parser, check=check, number=number) -> bool:
            return check(*parser.make(parser.read_words(words))[:number]) is None

        for name in (name for group in groups for name in kinds_of(group)):
            for value in VALUES:
                words = [*needed.split(), f"--{name}={value}"]
                yield lambda words=words, look=look: look(words)


def names_a_flag(sentence: str) -> bool:
    return "--" in sentence


def config_files() -> Iterator[Trial]:
    """Files given to `--config`."""
    contents = [
        "[",
        "a: b: c",
        "- 1",
        "1",
        "rank: {a: 1}",
        "!!python/object/apply:os.system ['x']",
        "&a [*a]",
        "a: &x [1]\nb: *x",
        "\0",
        "rank: nan",
        "? [a]\n: 1",
    ]
    contents += [
        "a: " + "[" * 20_000,
        "a: 1\n" * 500_000,
        "rank: 4\nrank: 5",
        "%TAG",
        "é: 1",
        '{"rank": 4}',
        "rank: 4",
        "",
        "---\n---\n",
    ]
    for content in contents:
        yield lambda content=content: isinstance(read_config(kept(content.encode())), dict)
    for content in (b"\xff\xfe", b"\x80rank: 4", bytes(range(256))):
        yield lambda content=content: isinstance(read_config(kept(content)), dict)
    for path in ("/dev/null/x", "/", "", "\0", "no-such-file.yaml"):
        yield lambda path=path: isinstance(read_config(path), dict)


def kept(content: bytes) -> str:
    """The path of a file with this content, in a folder that goes with the process."""
    path = Path(FILES.name) / f"{len(os.listdir(FILES.name))}.yaml"
    path.write_bytes(content)
    return str(path)


FILES = tempfile.TemporaryDirectory()


def images() -> Iterator[Trial]:
    """Pictures that are damaged, are none, or would fill the memory."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 16, 3), dtype=np.uint8))
    contents = [
        b"",
        b"\0" * 100,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ]
    contents += [
        b"<html><img src=http://localhost:1/></html>",
        b"%PDF-1.7",
        b"MZ",
        b"\x80\x04.",
        b"GIF89a\xff\xff\xff\xff\0\0\0;",
    ]
    for side in (20_000, 2**31 - 1):
        bomb = io.BytesIO()
        picture.save(bomb, "PNG")
        contents.append(bomb.getvalue()[:16] + side.to_bytes(4, "big") * 2 + bomb.getvalue()[24:])
    rng = random.Random(0)
    for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO"):
        file = io.BytesIO()
        picture.save(file, format)
        whole = file.getvalue()
        contents += [whole[: len(whole) * part // 8] for part in range(1, 9)]
        for _ in range(25):
            damaged = bytearray(whole)
            for _ in range(rng.choice((1, 4, 16))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            contents.append(bytes(damaged))
    for content in contents:
        yield lambda content=content: decode_image({"bytes": content, "path": None}, 7).mode == "RGB"
    for path in (
        str(ROOT / "docs" / "quickstart.png"),
        "docs/quickstart.png",
        "/dev/zero",
        "http://localhost:1/x.png",
        "..",
        "",
        "\0",
    ):
        yield (
            lambda path=path: decode_image({"bytes": None, "path": path}, 7) is None
        )  # a stranger's cell names no file of ours


def names_a_row(sentence: str) -> bool:
    return sentence.startswith("row 7: ")


TEXTS = [
    None,
    "",
    " ",
    5,
    1.5,
    True,
    [],
    {},
    b"x",
    "\ud800",
    "\0",
    "a\u202eb",
    "x" * 10**6,
    ["a"],
    "\n",
    "NaN",
    float("nan"),
    "&lt;b&gt;",
    "<b>x</b>",
]


def rows() -> Iterator[Trial]:
    """Rows of a data set whose cells hold anything."""
    columns = Columns()
    for prompt in TEXTS:
        for mismatched in [*TEXTS, ["b", None], ["b", 5], ["b", ""], [["b"]], ["b"] * 1000]:
            row = {"image": None, "prompt": prompt, "negative_prompts": mismatched, "principles": None}
            usable = (
                isinstance(prompt, str)
                and isinstance(mismatched, list)
                and all(isinstance(text, str) for text in mismatched)
            )
            yield lambda row=row, usable=usable: check_text(row, 7, columns, "tdpo", False) is None and usable


MUST_BE_REFUSED = [
    "",
    " ",
    "a red cat",
    "A RED CAT!",
    "a blue\0cat",
    "a blue\u202ecat",
    "a \U000e0062lue cat",
    "a blue cat\ue000",
    "a blue\uffff cat",
]
MUST_BE_REFUSED += [
    "<b>a blue cat</b>",
    "a blue cat" + "\u0301" * 40,
    "I cannot help with that.",
    "As an AI, I cannot edit this.",
    "a blue cat " * 50,
]
MUST_BE_REFUSED += [
    "&lt;b&gt;a blue cat&lt;/b&gt;",
    "[a](http://x) blue cat",
    "\ud800 blue cat",
    "un chat bleu et gris",
    "一只蓝色的猫",
    "a blue\ncat",
]


def edits() -> Iterator[Trial]:
    """Edited captions that must not get into a data set."""
    for edited in MUST_BE_REFUSED:
        yield lambda edited=edited: check_edit("a red cat", edited) is not None
    for edited in ("a blue cat", "a red dog", "two red cats"):
        yield lambda edited=edited: check_edit("a red cat", edited) is None


ANSWERS = [
    "",
    "{",
    "[" * 100_000,
    '{"edits": ' * 5000,
    '{"edits": 5}',
    '{"edits": [5]}',
    '{"edits": [{"caption": 5}]}',
    '{"edits": [null]}',
    "null",
    "NaN",
]
ANSWERS += [
    '{"edits": [{"caption": "a"}, {"caption": "b"}]}',
    "\0",
    "\ud800",
    "<think>" * 1000,
    "```json\n{}\n```",
    "1. a\n2. b",
    "9" * 5000,
    '{"a": ' + "9" * 5000 + "}",
]
ANSWERS += [
    "yes",
    "no, yes",
    '{"answers": ["yes"]}',
    '{"answers": [true, false]}',
    '{"answers": {"1": "yes"}}',
    "x" * 10**6,
    "Infinity",
    '{"edits": {}}',
]


def answers() -> Iterator[Trial]:
    """What a language model or a judge might write."""
    wanted = (Wanted("content"),)
    for text in ANSWERS:
        yield lambda text=text: isinstance(read_answer(text, wanted), list | None)
        yield lambda text=text: isinstance(read_verdicts(text, 2), list | None)


LINES = [
    "",
    "5",
    "null",
    "[]",
    "{}",
    '"x"',
    "nan",
    '{"row": 0}',
    '{"row": "0", "attempt": 0, "slots": [0], "answer": "x", "tokens": [1, 1]}',
    "\0",
    "{" * 10_000,
]
LINES += [
    '{"row": 0, "attempt": 0, "slots": [0], "answer": 5, "tokens": [1, 1]}',
    '{"row": 0, "attempt": 0, "slots": [0], "answer": "x", "tokens": 5}',
    '{"row": 10, "attempt": 0, "slots": [0], "answer": "x", "tokens": [0, 0]}',
]
LINES += [
    f'{{"row": 0, "attempt": 0, "slots": [0], "answer": "x", "tokens": [{"9" * 4000}, 0]}}',
    '{"row": 0, "attempt": -1, "slots": [0], "answer": "x", "tokens": [0, 0]}',
    '{"row": 0, "attempt": 0, "slots": [0], "answer": "x", "tokens": [-1, null]}',
]


def journals() -> Iterator[Trial]:
    """Lines in the journal of a build that is gone on with: it ends with rows of its captions, or says that the journal is damaged."""
    captions = [scene.caption() for scene in make_scenes(3, 0)]
    source = Source(datasets.Dataset.from_dict({"prompt": captions}), "prompt")

    def go_on(line: str) -> bool:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            build(source, ShapesEditor(), Plan(), folder, {})
            for path in [*folder.glob("data/*"), *folder.glob("work/*.report.json")]:
                path.unlink()
            (journal,) = folder.glob("work/*.journal.jsonl")
            journal.write_bytes(line.encode(errors="surrogatepass") + b"\n" + journal.read_bytes())
            build(source, ShapesEditor(), Plan(), folder, {})
            return {row["prompt"] for row in stream_texts(folder)} <= set(captions)

    for line in LINES:
        yield lambda line=line: go_on(line)


KINDS: dict[str, tuple[Callable[[], Iterator[Trial]], Callable[[str], bool]]] = {
    "values of every flag of every command": (flags, names_a_flag),
    "files for `--config`": (config_files, names_a_flag),
    "damaged, foreign and oversized pictures": (images, names_a_row),
    "rows whose cells hold anything": (rows, names_a_row),
    "edited captions that must not be kept": (edits, lambda sentence: True),
    "answers of a language model or a judge": (answers, lambda sentence: True),
    "damaged lines in a build's journal": (journals, lambda sentence: True),
}


def outcome(trial: Trial, is_clear: Callable[[str], bool]) -> str:
    """ "right", "clear error", or what the fault is."""
    started = time.monotonic()
    try:
        found = "right" if trial() else "fault: what must be refused was taken"
    except UserError as error:
        sentence = str(error)
        clear = is_clear(sentence) and 0 < len(sentence) <= LONGEST and "\n" not in sentence
        found = "clear error" if clear else f"fault: no clear sentence: {sentence[:200]}"
    except Exception as error:
        found = f"fault: {type(error).__name__}: {str(error)[:200]}"
    return found if time.monotonic() - started < SECONDS else f"fault: {SECONDS} seconds and more"


def run(kind: str) -> list[str]:
    trials, is_clear = KINDS[kind]
    return [outcome(trial, is_clear) for trial in trials()]


def main() -> None:
    table = []
    for kind in KINDS:
        found = run(kind)
        faults = [one for one in found if one.startswith("fault")]
        counts = (len(found), found.count("right"), found.count("clear error"), len(faults))
        table.append([kind, *map(str, counts)])
        print(*table[-1], *sorted(set(faults))[:20], sep="\n  ", flush=True)
    header = ["kind of trial", "tried", "right", "clear error", "fault"]
    today = str(datetime.date.today())
    write_tables(
        KEPT, {"kinds": Table(header, table)}, command="python tests/trials.py", date=today, machine=sys.platform
    )


if __name__ == "__main__":
    main()
