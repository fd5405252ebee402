"""Turns captions into mismatched prompts shard by shard, so that nothing is lost and nothing is asked twice.

Every answer is appended to its shard's journal as it comes. A shard is finished when its report is written; a killed run
starts at the first unfinished shard and replays that shard's journal.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError
from ..files import differences, make_folder, publish_file, read_json, write_whole
from .audit.languages import language_of
from .dataset import Source, write_splits
from .editors import Editor
from .journal import Journal
from .passes import Guarded, Judged, work_through
from .splits import SPLITS
from .tally import Tally
from .verifier import Opinions, Verifier
from .work import Plan, Result


LATER = ("verify", "then")  # parts of an identity that a finished run may get when it goes on
WRITTEN = ("README.md", "audit.json", "failed.jsonl", "preview.html")  # in output_dir, beside data/ and work/


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
        return self.files["train"]

    @property
    def files(self) -> dict[str, Path]:
        """Where the rows of each split go."""
        name = f"{self.number:05d}-of-{self.shards:05d}.parquet"
        return {split: self.folder / "data" / f"{split}-{name}" for split in SPLITS}

    @property
    def journal(self) -> Path:
        return self.folder / "work" / f"{self.number:05d}.journal.jsonl"

    @property
    def then_journal(self) -> Path:
        return self.folder / "work" / f"{self.number:05d}.then.journal.jsonl"

    @property
    def opinions(self) -> Path:
        return self.folder / "work" / f"{self.number:05d}.opinions.jsonl"

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
        stages: what was done beyond editing, see [`LATER`].
    """

    tally: Tally
    failed: list[dict]
    unanswered: int
    stages: list[str]

    @classmethod
    def read(cls, saved: dict) -> "Report":
        """Raises `ValueError` if `saved` is none."""
        tally, failed, unanswered, stages = (saved.get(name) for name in ("tally", "failed", "unanswered", "stages"))
        if not isinstance(tally, dict) or type(unanswered) is not int:
            raise ValueError("it is no report")
        if not isinstance(failed, list) or not all(isinstance(row, dict) for row in failed):
            raise ValueError("it is no report")
        if not isinstance(stages, list):
            raise ValueError("it is no report")
        return cls(Tally.read(tally), failed, unanswered, stages)


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
        identity: whatever decides what the result is. What is [`LATER`] may be `None` at first.
        is_own: whether a file of this name in `data/` belongs to the run.

    Raises:
        UserError: naming every difference, or a file in the folder that no such run has written.
    """
    path = folder / "work" / "config.json"
    is_new = not path.exists()
    identity = json.loads(json.dumps(identity))
    saved = {} if is_new else read_json(path)
    added = [name for name in LATER if saved.get(name) is None and identity.get(name) is not None]
    if is_new:
        foreign = [folder / name for name in WRITTEN if (folder / name).exists()]
    elif changed := differences(saved | {name: identity[name] for name in added}, identity):
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
    if is_new or added:
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
    verifier: Verifier | None = None,
    then: Editor | None = None,
) -> Tally:
    """Builds a data set of mismatched prompts in a folder, or goes on with what is there.

    Args:
        source: captions, and images if there are any.
        identity: whatever decides what the result is; a run with another one does not go on.
        rows_per_shard: captions in one parquet file.
        retry_failed: do the finished shards with rows that got no answer again; what was answered is not asked again.
        progress: called with the tally so far after every answer.
        verifier: has judges look at every edit; a finished set may get one later.
        then: edits the captions that `editor` finds no edit for; a finished set may get one later.

    Returns:
        The tally of all shards, those of earlier runs included.

    Raises:
        UserError: if the folder belongs to another configuration or another run works in it, or the editor fails.
    """
    folder = Path(folder)
    stages = Stages(Guarded(editor), plan, verifier, None if then is None else Guarded(then))
    shards = split(folder, len(source.rows), rows_per_shard)
    names = {path.name for shard in shards for path in shard.files.values()}
    with only_run(folder):
        begin(folder, identity | {"rows_per_shard": rows_per_shard}, names.__contains__)
        total, unfinished = Tally(), []
        for shard in shards:
            report = shard.read_report()
            if report is None or report.stages != stages.names or retry_failed and report.unanswered:
                unfinished.append(shard)
            else:
                total += report.tally
        for shard in unfinished:

            def so_far(tally: Tally, done: Tally = total) -> None:
                progress(done + tally)

            total += build_shard(shard, source, stages, so_far)
        collect_failed(folder, shards)
    return total


@dataclass(frozen=True)
class Stages:
    """Who works on every caption: an editor, judges, and another editor for what is left."""

    editor: Editor
    plan: Plan
    verifier: Verifier | None = None
    then: Editor | None = None

    @property
    def names(self) -> list[str]:
        there = {"verify": self.verifier, "then": self.then}
        return [name for name in LATER if there[name] is not None]

    def work_through(
        self, captions: dict[int, str], shard: Shard, progress: Callable[[Tally], None]
    ) -> tuple[list[tuple[Result, str]], Tally]:
        """What came of every caption, with the name of the editor."""
        with contextlib.ExitStack() as files:
            done, judged = Tally(), None
            if self.verifier is not None:
                judged = Judged(self.verifier, files.enter_context(Opinions(shard.opinions)))
                for opinion in judged.opinions.records:
                    done.add_opinion(opinion)
            journal = files.enter_context(Journal(shard.journal, captions))
            results, tally = work_through(
                captions, self.editor, self.plan, journal, lambda now: progress(done + now), judged
            )
            found = {result.row: (result, self.editor.name) for result in results}
            done += tally
            if self.then is None:
                return list(found.values()), done

            left = {result.row: captions[result.row] for result in results if result.may_be_edited}
            done.take_back(len(left))
            journal = files.enter_context(Journal(shard.then_journal, captions))
            later, tally = work_through(left, self.then, self.plan, journal, lambda now: progress(done + now), judged)
            found |= {result.row: (result, self.then.name) for result in later}
            return list(found.values()), done + tally


def build_shard(shard: Shard, source: Source, stages: Stages, progress: Callable[[Tally], None]) -> Tally:
    """Works one shard through, writes its rows and then its report, which makes it finished."""
    shard.report.unlink(missing_ok=True)
    numbers = range(shard.start, shard.stop)
    captions = dict(zip(numbers, source.captions(shard.start, shard.stop), strict=True))
    found, tally = stages.work_through(captions, shard, progress)
    kept = [(result, editor) for result, editor in found if result.reason is None]
    verifier = None if stages.verifier is None else stages.verifier.name
    write_splits(shard.files, source, kept, verifier, stages.plan.shares)
    failed = [
        {"row": result.row, "key": source.key(result.row), "prompt": captions[result.row], "reason": result.reason}
        | {"unanswered": result.unanswered}
        for result, _ in found
        if result.reason is not None
    ]
    unanswered = sum(result.unanswered for result, _ in found)
    report = {"tally": vars(tally), "failed": failed, "unanswered": unanswered, "stages": stages.names}
    write_whole(shard.report, json.dumps(report, sort_keys=True))
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


def languages_of_failed(folder: Path) -> dict[str, int]:
    """How many captions of each language were set aside, from `failed.jsonl`."""
    with (folder / "failed.jsonl").open(encoding="utf-8") as file:
        return dict(Counter(language_of(row["prompt"]) for row in map(json.loads, file)))


def collect_failed(folder: Path, shards: list[Shard]) -> None:
    """Writes `failed.jsonl`: every caption that was set aside, and why."""
    partial = folder / ".partial-failed.jsonl"
    with partial.open("w", encoding="utf-8") as file:
        for report in filter(None, (shard.read_report() for shard in shards)):
            for row in report.failed:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    publish_file(partial, folder / "failed.jsonl")
