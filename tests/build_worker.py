"""What the tests of building run in processes of their own, which may be killed: light to import, nothing of pytest."""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets

from diffusers_tpo.negatives import dataset
from diffusers_tpo.negatives.build import build
from diffusers_tpo.negatives.chat import ChatEditor
from diffusers_tpo.negatives.dataset import Source
from diffusers_tpo.negatives.editors import Answer, EditRequest
from diffusers_tpo.negatives.work import Plan


WORDS = {
    "content": ("cat", ("dog", "fox", "pig")),
    "attribute": ("red", ("blue", "green", "pink")),
    "spatial": ("left", ("right", "top", "bottom")),
    "contextual": ("morning", ("evening", "winter", "rain")),
}
ROWS_PER_SHARD = 40


def captions(number: int) -> list[str]:
    return [f"a red cat on the left in the morning, number {row}" for row in range(number)]


def source_of(texts: list[str]) -> Source:
    return Source(datasets.Dataset.from_dict({"text": texts}), "text")


class WordEditor:
    """Exchanges one word; every fifth row gets an unusable answer first, every seventh one has nothing to edit by content.

    Args:
        log: a file that receives the row and attempt of every request before it is answered.
        seconds: that each answer takes.
    """

    name = "words"

    def __init__(self, log: Path | None = None, seconds: float = 0.0):
        self.log, self.seconds = log, seconds

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer]]:
        for request in requests:
            if self.log is not None:
                with open(self.log, "a") as file:
                    file.write(f"{request.row} {request.attempt}\n")
            time.sleep(self.seconds)
            yield request, Answer(self.answer(request), 10, 5)

    def answer(self, request: EditRequest) -> str:
        if request.row % 5 == 0 and request.attempt == 0 or request.row % 23 == 22:
            return "no idea"
        edits = []
        for number, wanted in enumerate(request.wanted):
            old, others = WORDS[wanted.principle]
            new = others[(number + request.attempt) % len(others)]
            nothing = request.row % 7 == 0 and wanted.principle == "content"
            edits.append({"caption": None if nothing else request.caption.replace(old, new)})
        return json.dumps({"edits": edits})


def only_errors_shown(path: Path | None) -> None:
    datasets.disable_progress_bars()
    if path is not None:
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())


def chat_build(
    url: str, folder: Path, rows: int, concurrency: int, num_negatives: int, errors: Path | None = None
) -> None:
    only_errors_shown(errors)
    editor = ChatEditor("tiny-llm", (url,), "key", concurrency, timeout=60.0, max_retries=3)
    plan = Plan(num_negatives=num_negatives, max_attempts=2)
    build(source_of(captions(rows)), editor, plan, folder, {"rows": rows}, ROWS_PER_SHARD)


def word_build(folder: Path, rows: int, log: Path | None = None, seconds: float = 0.0, images: bool = False) -> None:
    only_errors_shown(None)
    source = source_of(captions(rows))
    if images:
        import tiny

        columns = {"text": captions(rows), "image": tiny.make_images(rows)}
        source = Source(datasets.Dataset.from_dict(columns), "text", "image")
    build(source, WordEditor(log, seconds), Plan(num_negatives=2), folder, {"rows": rows}, ROWS_PER_SHARD)


def word_build_killed_at(moment: int, after: bool, *build_arguments) -> None:
    """Kills itself right before or after a file gets its final name for the time number `moment`."""
    replace, left = os.replace, [moment]

    def deadly(*paths):
        left[0] -= 1
        if left[0] < 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly
    word_build(*build_arguments)


def word_build_killed_embedding(*build_arguments) -> None:
    """Kills itself while the images of the first shard are copied."""
    dataset.with_content = lambda *cell: os.kill(os.getpid(), signal.SIGKILL)
    word_build(*build_arguments)


def measured_build(captions_folder: Path, folder: Path, rows: int, rows_per_shard: int, report: Path) -> None:
    """Builds from captions on the disk and writes the largest memory that the process had, in megabytes."""
    only_errors_shown(None)
    source = Source(datasets.load_from_disk(str(captions_folder)).select(range(rows)), "text")
    tally = build(source, WordEditor(), Plan(), folder, {}, rows_per_shard)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report.write_text(json.dumps({"peak": peak, "captions": tally.captions}))
