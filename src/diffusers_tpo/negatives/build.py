"""Turns captions into mismatched prompts shard by shard, so that nothing is lost and nothing is asked twice.

Every answer is appended to its shard's journal as it comes. A shard is finished when its report is written; a killed run
starts at the first unfinished shard and replays that shard's journal.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError
from ..files import differences, make_folder, publish_file, read_json, write_whole
from .dataset import Source, write_shard
from .editors import Answer, Editor, EditRequest, Edits, failure_of
from .journal import Journal, Record
from .work import CaptionWork, Plan, Result


FAILURES_IN_A_ROW = 100
WRITTEN = ("README.md", "audit.json", "failed.jsonl", "preview.html")  # in output_dir, beside data/ and work/


@dataclass
class Tally:
    """What happened to captions and requests so far; adds up over shards."""

    captions: int = 0
    kept: int = 0
    failed: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rejected: Counter = field(default_factory=Counter)

    def add_answer(self, record: Record) -> None:
        self.requests += 1
        self.prompt_tokens += record.prompt_tokens
        self.completion_tokens += record.completion_tokens

    def add_result(self, result: Result) -> None:
        self.captions += 1
        self.kept += result.reason is None
        self.failed += result.reason is not None
        self.rejected.update(result.rejected)

    @classmethod
    def read(cls, saved: dict) -> "Tally":
        """A tally as a report keeps it.

        Raises:
            ValueError: if it is none.
        """
        if saved.keys() != vars(cls()).keys() or not isinstance(saved["rejected"], dict):
            raise ValueError("it is no tally")
        counts = [*saved["rejected"].values(), *(value for name, value in saved.items() if name != "rejected")]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a tally holds whole numbers")
        return cls(**saved | {"rejected": Counter(saved["rejected"])})

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{name: value + vars(other)[name] for name, value in vars(self).items()})


class Guarded:
    """An editor that ends the run when it fails many times in a row, rather than setting every caption aside."""

    def __init__(self, editor: Editor):
        self.editor, self.name, self.failures = editor, editor.name, 0

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer | Edits]]:
        for request, answer in self.editor.edit(requests):
            failure = failure_of(answer)
            self.failures = 0 if failure is None else self.failures + 1
            if self.failures >= FAILURES_IN_A_ROW:
                raise UserError(
                    f"the editor failed {self.failures} times in a row, at last with {failure!r}; check it and run "
                    "the same command again: no answer that came is lost"
                )
            yield request, answer


def work_through(
    captions: dict[int, str],
    editor: Editor,
    plan: Plan,
    journal: Journal,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> tuple[list[Result], Tally]:
    """Gets mismatched prompts for some captions: first from the journal, then from the editor.

    Args:
        captions: text of every caption by its number.
        progress: called with the tally of this call after every answer.
    """
    tally = Tally()
    works = {number: CaptionWork(number, caption, plan) for number, caption in captions.items()}
    for record in journal.records:
        tally.add_answer(record)
        works[record.row].receive(record.answer)
    results = {number: work.result() for number, work in works.items() if work.request() is None}
    for result in results.values():
        tally.add_result(result)
    progress(tally)

    while len(results) < len(works):
        waiting = (work.request() for number, work in works.items() if number not in results)
        requests = (request for request in waiting if request is not None)
        for request, answer in editor.edit(requests):
            work, failure = works[request.row], failure_of(answer)
            if failure is None:
                record = journal.append(request, answer)
                tally.add_answer(record)
                work.receive(record.answer)
            else:
                work.failure = failure
            if work.request() is None:
                results[request.row] = work.result()
                tally.add_result(results[request.row])
            progress(tally)
    return [results[number] for number in works], tally


@dataclass(frozen=True)
class Shard:
    """Rows `[start, stop)` of the source and the files that hold what became of them."""

    folder: Path
    number: int
    shards: int
    start: int
    stop: int

    @property
    def data(self) -> Path:
        return self.folder / "data" / f"train-{self.number:05d}-of-{self.shards:05d}.parquet"

    @property
    def journal(self) -> Path:
        return self.folder / "work" / f"{self.number:05d}.journal.jsonl"

    @property
    def report(self) -> Path:
        return self.folder / "work" / f"{self.number:05d}.report.json"

    def read_report(self) -> "Report | None":
        """The report of a finished shard; a damaged one is none, and its shard is made again from the journal."""
        if not (self.report.exists() and self.data.exists()):
            return None
        try:
            return Report.read(read_json(self.report))
        except ValueError:
            return None


@dataclass(frozen=True)
class Report:
    """What became of the captions of a finished shard.

    Args:
        failed: the captions that were set aside, with the reasons.
        unanswered: how many of them got no answer.
    """

    tally: Tally
    failed: list[dict]
    unanswered: int

    @classmethod
    def read(cls, saved: dict) -> "Report":
        """Raises `ValueError` if `saved` is none."""
        tally, failed, unanswered = (saved.get(name) for name in ("tally", "failed", "unanswered"))
        if not isinstance(tally, dict) or type(unanswered) is not int:
            raise ValueError("it is no report")
        if not isinstance(failed, list) or not all(isinstance(row, dict) for row in failed):
            raise ValueError("it is no report")
        return cls(Tally.read(tally), failed, unanswered)


def split(folder: Path, rows: int, rows_per_shard: int) -> list[Shard]:
    shards = max(1, -(-rows // rows_per_shard))
    return [
        Shard(folder, number, shards, number * rows_per_shard, min(rows, (number + 1) * rows_per_shard))
        for number in range(shards)
    ]


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder while the block works in it; within the block it may be used again.

    Raises:
        UserError: if another run does, or the folder cannot be written to.
    """
    make_folder(folder, "--output_dir")
    make_folder(folder / "work", "--output_dir")
    try:
        with FileLock(folder / "work" / "lock", timeout=0, is_singleton=True):
            yield
    except Timeout as error:
        raise UserError(
            f"--output_dir {str(folder)!r} is in use by another run; wait for it or use another one"
        ) from error


def begin(folder: Path, identity: dict, is_own: Callable[[str], bool]) -> None:
    """Writes down what a new run builds from, or checks that a run goes on with the same.

    Args:
        identity: whatever decides what the result is.
        is_own: whether a file of this name in `data/` belongs to the run.

    Raises:
        UserError: naming every difference, or a file in the folder that no such run has written.
    """
    path = folder / "work" / "config.json"
    is_new = not path.exists()
    if is_new:
        foreign = [folder / name for name in WRITTEN if (folder / name).exists()]
    elif changed := differences(read_json(path), json.loads(json.dumps(identity))):
        raise UserError(
            f"--output_dir {str(folder)!r} was begun with another configuration: {changed}; use the same flags or another "
            "output_dir"
        )
    else:
        foreign = []
    there = sorted((folder / "data").iterdir()) if (folder / "data").exists() else []
    foreign += [file for file in there if not file.name.startswith(".partial-") and (is_new or not is_own(file.name))]
    if foreign:
        raise UserError(
            f"--output_dir {str(folder)!r} holds {str(foreign[0].relative_to(folder))!r}, which this run has not written; use "
            "another --output_dir"
        )
    if is_new:
        write_whole(path, json.dumps(identity, indent=2, sort_keys=True))


def build(
    source: Source,
    editor: Editor,
    plan: Plan,
    folder: Path,
    identity: dict,
    rows_per_shard: int = 10_000,
    retry_failed: bool = True,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Builds a data set of mismatched prompts in a folder, or goes on with what is there.

    Args:
        source: captions, and images if there are any.
        identity: whatever decides what the result is; a run with another one does not go on.
        rows_per_shard: captions in one parquet file.
        retry_failed: do the finished shards with rows that got no answer again; what was answered is not asked again.
        progress: called with the tally so far after every answer.

    Returns:
        The tally of all shards, those of earlier runs included.

    Raises:
        UserError: if the folder belongs to another configuration or another run works in it, or the editor fails.
    """
    folder, editor = Path(folder), Guarded(editor)
    shards = split(folder, len(source.rows), rows_per_shard)
    names = {shard.data.name for shard in shards}
    with only_run(folder):
        begin(folder, identity | {"rows_per_shard": rows_per_shard}, names.__contains__)
        total, unfinished = Tally(), []
        for shard in shards:
            report = shard.read_report()
            if report is None or retry_failed and report.unanswered:
                unfinished.append(shard)
            else:
                total += report.tally
        for shard in unfinished:

            def so_far(tally: Tally, done: Tally = total) -> None:
                progress(done + tally)

            total += build_shard(shard, source, editor, plan, so_far)
        collect_failed(folder, shards)
    return total


def build_shard(shard: Shard, source: Source, editor: Editor, plan: Plan, progress: Callable[[Tally], None]) -> Tally:
    """Works one shard through, writes its rows and then its report, which makes it finished."""
    shard.report.unlink(missing_ok=True)
    numbers = range(shard.start, shard.stop)
    captions = dict(zip(numbers, source.captions(shard.start, shard.stop), strict=True))
    with Journal(shard.journal, numbers) as journal:
        results, tally = work_through(captions, editor, plan, journal, progress)
    write_shard(shard.data, source, [result for result in results if result.reason is None], editor.name)
    failed = [
        {"row": result.row, "key": source.key(result.row), "prompt": captions[result.row], "reason": result.reason}
        | {"unanswered": result.unanswered}
        for result in results
        if result.reason is not None
    ]
    unanswered = sum(result.unanswered for result in results)
    report = {"tally": vars(tally), "failed": failed, "unanswered": unanswered}
    write_whole(shard.report, json.dumps(report))
    return tally


def causes(folder: Path, unanswered: bool = False) -> Counter[str]:
    """Why captions were set aside and how many, from `failed.jsonl`.

    Args:
        unanswered: count only those that got no answer.
    """
    found: Counter[str] = Counter()
    with (folder / "failed.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["unanswered"] or not unanswered:
                found[row["reason"]] += 1
    return found


def collect_failed(folder: Path, shards: list[Shard]) -> None:
    """Writes `failed.jsonl`: every caption that was set aside, and why."""
    partial = folder / ".partial-failed.jsonl"
    with partial.open("w", encoding="utf-8") as file:
        for report in filter(None, (shard.read_report() for shard in shards)):
            for row in report.failed:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    publish_file(partial, folder / "failed.jsonl")
