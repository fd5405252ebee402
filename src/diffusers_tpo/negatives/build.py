"""Turns captions into mismatched prompts shard by shard, so that nothing is lost and nothing is asked twice.

Every answer is appended to its shard's journal as it comes. A shard is finished when its report is written; a killed run
starts at the first unfinished shard and replays that shard's journal.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError
from ..files import differences, publish_file, read_json, write_whole
from .dataset import Source, write_shard
from .editors import Answer, Editor, EditRequest
from .journal import Journal
from .work import Plan, Result, RowWork


FAILURES_IN_A_ROW = 100


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

    def add_answer(self, record: dict) -> None:
        self.requests += 1
        self.prompt_tokens += record["tokens"][0]
        self.completion_tokens += record["tokens"][1]

    def add_result(self, result: Result) -> None:
        self.captions += 1
        self.kept += result.reason is None
        self.failed += result.reason is not None
        self.rejected.update(result.rejected)

    @classmethod
    def read(cls, saved: dict) -> "Tally":
        """A tally as a report keeps it."""
        return cls(**saved | {"rejected": Counter(saved["rejected"])})

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{name: value + vars(other)[name] for name, value in vars(self).items()})


class Guarded:
    """An editor that ends the run when it fails many times in a row, rather than setting every caption aside."""

    def __init__(self, editor: Editor):
        self.editor, self.name, self.failures = editor, editor.name, 0

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer]]:
        for request, answer in self.editor.edit(requests):
            self.failures = 0 if answer.failure is None else self.failures + 1
            if self.failures >= FAILURES_IN_A_ROW:
                raise UserError(
                    f"the editor failed {self.failures} times in a row, at last with {answer.failure!r}; check it and run "
                    "the same command again: no answer that came is lost"
                )
            yield request, answer


def work_through(
    captions: Sequence[tuple[int, str]],
    editor: Editor,
    plan: Plan,
    journal: Journal,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> tuple[list[Result], Tally]:
    """Gets mismatched prompts for some captions: first from the journal, then from the editor.

    Args:
        captions: number and text of every caption.
        progress: called with the tally of this call after every answer.
    """
    rows = {number: RowWork(number, caption, plan) for number, caption in captions}
    tally = Tally()
    for record in sorted(journal.records, key=lambda record: record["attempt"]):
        work = rows[record["row"]]
        if record["attempt"] == work.attempt:
            tally.add_answer(record)
            work.receive(record["answer"])
    results = {number: work.result() for number, work in rows.items() if work.request() is None}
    for result in results.values():
        tally.add_result(result)
    progress(tally)
    while len(results) < len(rows):
        requests = (work.request() for number, work in rows.items() if number not in results)
        for request, answer in editor.edit(requests):
            work = rows[request.row]
            if answer.failure is None:
                tally.add_answer(journal.append(request, answer))
                work.receive(answer.text)
            else:
                work.failure = answer.failure
            if work.request() is None:
                results[request.row] = work.result()
                tally.add_result(results[request.row])
            progress(tally)
    return [results[number] for number in rows], tally


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

    def read_report(self) -> dict | None:
        """`tally`, `failed` and `unanswered` of a finished shard, else `None`."""
        return read_json(self.report) if self.report.exists() and self.data.exists() else None


def split(folder: Path, rows: int, rows_per_shard: int) -> list[Shard]:
    shards = max(1, -(-rows // rows_per_shard))
    return [
        Shard(folder, number, shards, number * rows_per_shard, min(rows, (number + 1) * rows_per_shard))
        for number in range(shards)
    ]


def check_config(folder: Path, config: dict) -> None:
    """Writes the configuration of a new run, or checks that a run goes on with its own.

    Raises:
        UserError: naming every difference.
    """
    path = folder / "work" / "config.json"
    if not path.exists():
        write_whole(path, json.dumps(config, indent=2, sort_keys=True))
        return
    changed = differences(read_json(path), json.loads(json.dumps(config)))
    if changed:
        raise UserError(
            f"output_dir {str(folder)!r} was begun with another configuration: {changed}; use the same flags or another "
            "output_dir"
        )


def build(
    source: Source,
    editor: Editor,
    plan: Plan,
    folder: Path,
    config: dict,
    rows_per_shard: int = 10_000,
    retry_failed: bool = False,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Builds a data set of mismatched prompts in a folder, or goes on with what is there.

    Args:
        source: captions, and images if there are any.
        config: whatever decides what the result is; a run with another one does not go on.
        rows_per_shard: captions in one parquet file.
        retry_failed: do the finished shards with rows that got no answer again; what was answered is not asked again.
        progress: called with the tally so far after every answer.

    Returns:
        The tally of all shards, those of earlier runs included.

    Raises:
        UserError: if the folder belongs to another configuration or another run works in it, or the editor fails.
    """
    folder, editor = Path(folder), Guarded(editor)
    (folder / "work").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "work" / "lock", timeout=0):
            check_config(folder, config | {"rows_per_shard": rows_per_shard})
            total, unfinished = Tally(), []
            for shard in split(folder, len(source.rows), rows_per_shard):
                report = shard.read_report()
                if report is None or retry_failed and report["unanswered"]:
                    unfinished.append(shard)
                else:
                    total += Tally.read(report["tally"])
            for shard in unfinished:
                total += build_shard(shard, source, editor, plan, lambda tally, done=total: progress(done + tally))
            collect_failed(folder)
    except Timeout as error:
        raise UserError(
            f"output_dir {str(folder)!r} is in use by another run; wait for it or use another one"
        ) from error
    return total


def build_shard(shard: Shard, source: Source, editor: Editor, plan: Plan, progress: Callable[[Tally], None]) -> Tally:
    """Works one shard through, writes its rows and then its report, which makes it finished."""
    shard.report.unlink(missing_ok=True)
    captions = list(zip(range(shard.start, shard.stop), source.captions(shard.start, shard.stop), strict=True))
    with Journal(shard.journal) as journal:
        results, tally = work_through(captions, editor, plan, journal, progress)
    write_shard(shard.data, source, [result for result in results if result.reason is None], editor.name)
    failed = [
        {"row": result.row, "key": source.key(result.row), "prompt": caption, "reason": result.reason}
        | {"unanswered": result.unanswered}
        for result, (_, caption) in zip(results, captions, strict=True)
        if result.reason is not None
    ]
    unanswered = sum(result.unanswered for result in results)
    report = {"tally": vars(tally), "failed": failed, "unanswered": unanswered}
    write_whole(shard.report, json.dumps(report))
    return tally


def collect_failed(folder: Path) -> None:
    """Writes `failed.jsonl`: every row that was set aside, and why."""
    partial = folder / ".partial-failed.jsonl"
    with partial.open("w", encoding="utf-8") as file:
        for path in sorted((folder / "work").glob("*.report.json")):
            for row in read_json(path)["failed"]:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    publish_file(partial, folder / "failed.jsonl")
