"""Building a data set: what is in it, and that killed runs lose nothing and ask nothing twice, with real processes."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import processes
import pytest
import tiny
from build_worker import (
    WordEditor,
    captions,
    chat_build,
    measured_build,
    source_of,
    word_build,
    word_build_killed_at,
    word_build_killed_embedding,
)
from chat_server import ChatServer, completion, good, refused
from pyarrow.parquet import read_schema

from diffusers_tpo.errors import UserError
from diffusers_tpo.image_files import LocalFiles
from diffusers_tpo.negatives.build import build, causes
from diffusers_tpo.negatives.chat import ChatEditor
from diffusers_tpo.negatives.checks import check_edit
from diffusers_tpo.negatives.dataset import Source, join_images, load_captions_file, shard_files, stream_texts
from diffusers_tpo.negatives.editors import Answer
from diffusers_tpo.negatives.journal import Journal, Record
from diffusers_tpo.negatives.passes import FAILURES_IN_A_ROW
from diffusers_tpo.negatives.tally import Tally
from diffusers_tpo.negatives.work import CaptionWork, Plan


def start(target, *arguments) -> multiprocessing.Process:
    process = processes.server().Process(target=target, args=arguments)
    process.start()
    return process


def finish(process: multiprocessing.Process) -> int:
    process.join(processes.PATIENCE)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def wait_for(condition) -> None:
    end = time.monotonic() + processes.PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def killed(process: multiprocessing.Process, count, moment: int, seconds: float) -> int:
    """Kills a process so many seconds after a count has reached a number; its exit code tells whether it was in time."""
    wait_for(lambda: count() >= moment or process.exitcode is not None)
    time.sleep(seconds)
    process.kill()
    return finish(process)


def state(folder: Path) -> tuple[list[dict], list[str]]:
    """All rows and all rows that were set aside."""
    return list(stream_texts(folder)), (folder / "failed.jsonl").read_text().splitlines()


def journalled(folder: Path) -> Counter:
    """How many answers of each row the journals hold; an unfinished last line is none."""
    rows = Counter()
    for path in (folder / "work").glob("*.journal.jsonl"):
        text = path.read_bytes()
        for line in text[: text.rfind(b"\n") + 1].splitlines():
            record = json.loads(line)
            assert record["attempt"] == rows[record["row"]]
            rows[record["row"]] += 1
    return rows


class Scripted:
    """An editor that gives each request what a function makes of it: a text, or an `Answer`."""

    name = "scripted"

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def edit(self, requests):
        for request in requests:
            self.asked.append((request.row, request.attempt))
            answer = self.answer(request)
            yield request, Answer(answer) if isinstance(answer, str) else answer


def blue(request) -> str:
    return json.dumps({"edits": [request.caption.replace("red", "blue")] * len(request.wanted)})


# ---- the journal


REQUEST = CaptionWork(3, "a red cat", Plan()).request()


def test_a_journal_gives_back_what_it_was_given(tmp_path):
    texts = ["plain", "two\nlines \u2028 \x00", "half \ud800 characters", "", '{"edits": []}\r\n', "ü猫"]
    with Journal(tmp_path / "work" / "j", {3}) as journal:
        for attempt, text in enumerate(texts):
            journal.append(replace(REQUEST, attempt=attempt), Answer(text, 7, 8))
    with Journal(tmp_path / "work" / "j", {3}) as journal:
        assert [record.answer for record in journal.records] == texts
        assert journal.records[2] == Record(3, 2, texts[2], (0,), 7, 8)


def test_every_torn_last_line_is_cut_off_and_the_journal_goes_on(tmp_path):
    path = tmp_path / "j"
    with Journal(path, {3}) as journal:
        journal.append(REQUEST, Answer("first"))
        journal.append(replace(REQUEST, attempt=1), Answer("second"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with Journal(path, {3}) as journal:
            assert [record.answer for record in journal.records] == ["first"] * (length >= first)
            journal.append(replace(REQUEST, attempt=len(journal.records)), Answer("later"))
        with Journal(path, {3}) as journal:
            assert [record.answer for record in journal.records][-1:] == ["later"]


def test_an_answer_is_in_the_file_as_soon_as_it_is_given(tmp_path):
    with Journal(tmp_path / "j", {3}) as journal:
        journal.append(REQUEST, Answer("x"))
        assert (tmp_path / "j").read_bytes().endswith(b"\n")


# ---- what is built


def test_the_folder_is_a_data_set(tmp_path):
    tally = build(source_of(captions(100)), WordEditor(), Plan(num_negatives=2), tmp_path / "out", {}, 40)
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [path.name for path in shard_files(tmp_path / "out")] == [
        f"train-{n:05d}-of-00003.parquet" for n in range(3)
    ]
    assert rows.features == datasets.Features(
        {
            "key": datasets.Value("string"),
            "prompt": datasets.Value("string"),
            "negative_prompts": datasets.List(datasets.Value("string")),
            "principles": datasets.List(datasets.Value("string")),
            "num_edits": datasets.List(datasets.Value("int32")),
            "editor": datasets.Value("string"),
        }
    )
    assert list(rows) == list(stream_texts(tmp_path / "out"))
    kept = [row for row in range(100) if row % 23 != 22]
    assert rows["key"] == [str(row) for row in kept] and rows["prompt"] == [captions(100)[row] for row in kept]
    for row in rows:
        assert len(row["negative_prompts"]) == len(row["principles"]) == len(row["num_edits"]) == 2
        first, second = row["negative_prompts"]
        assert check_edit(row["prompt"], first) is check_edit(row["prompt"], second, others=(first,)) is None
        assert row["num_edits"] == [1, 1] and row["editor"] == "words"
        assert int(row["key"]) % 7 or "content" not in row["principles"]
    assert (tally.captions, tally.kept, tally.failed) == (100, 96, 4)
    assert tally.prompt_tokens == 10 * tally.requests == 10 * sum(journalled(tmp_path / "out").values())
    assert tally.completion_tokens == 5 * tally.requests and tally.rejected["malformed"] >= 2 * 20


def test_rows_that_are_set_aside_are_listed_with_their_reason(tmp_path):
    texts = ["a red cat", "", "a red dog", None, " ", "a red fox"]
    rows = datasets.Dataset.from_dict({"id": [5, 6, 7, 8, 9, 10], "caption": texts})
    down = Answer(failure="APIConnectionError: no")
    editor = Scripted(
        lambda request: down if "fox" in request.caption else "?" if "dog" in request.caption else blue(request)
    )
    tally = build(
        Source(rows, "caption", key_column="id"), editor, Plan(("attribute",), max_attempts=1), tmp_path, {}, 2
    )
    assert [(row["key"], row["prompt"]) for row in stream_texts(tmp_path)] == [("5", "a red cat")]
    failed = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    empty = {"reason": "the caption is empty", "unanswered": False}
    assert failed == [
        {"row": 1, "key": "6", "prompt": "", **empty},
        {"row": 2, "key": "7", "prompt": "a red dog", "reason": failed[1]["reason"], "unanswered": False},
        {"row": 3, "key": "8", "prompt": "", **empty},
        {"row": 4, "key": "9", "prompt": " ", **empty},
        {"row": 5, "key": "10", "prompt": "a red fox", "reason": "APIConnectionError: no", "unanswered": True},
    ]
    assert failed[1]["reason"].startswith("no usable edit: ")
    assert (tally.kept, tally.failed, tally.requests) == (1, 5, 2)
    assert sorted(editor.asked) == [(0, 0), (2, 0), (5, 0)]


@pytest.mark.parametrize("images", [False, True])
def test_a_shard_without_rows_fits_the_others(tmp_path, images):
    columns = {"text": captions(6)} | ({"image": tiny.make_images(6)} if images else {})
    source = Source(datasets.Dataset.from_dict(columns), "text", "image" if images else None)
    build(
        source,
        Scripted(lambda asked: "?" if asked.row in (2, 3) else blue(asked)),
        Plan(("attribute",)),
        tmp_path / "out",
        {},
        2,
    )
    assert len({str(read_schema(path)) for path in shard_files(tmp_path / "out")}) == 1
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["key"] == ["0", "1", "4", "5"] and ("image" in rows.column_names) == images


@pytest.mark.parametrize("kind", ["imagefolder", "in memory"])
def test_images_are_kept_byte_by_byte(tmp_path, kind):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, image in enumerate(tiny.make_images(250)):
        image.save(pictures / f"{number}.{'png' if number % 2 else 'jpg'}")
    files = sorted(pictures.iterdir(), key=lambda path: int(path.stem))
    stored = [path.read_bytes() for path in files]
    if kind == "imagefolder":
        lines = [json.dumps({"file_name": path.name, "text": captions(250)[int(path.stem)]}) for path in files]
        (pictures / "metadata.jsonl").write_text("\n".join(lines))
        rows = datasets.load_dataset("imagefolder", data_dir=pictures, split="train", cache_dir=str(tmp_path / "in"))
    else:
        columns = {"picture": [{"bytes": data, "path": None} for data in stored], "text": captions(250)}
        rows = datasets.Dataset.from_dict(columns).cast_column("picture", datasets.Image())
    column = "image" if kind == "imagefolder" else "picture"
    before = Path(rows.cache_files[0]["filename"]).stat() if rows.cache_files else None
    build(
        Source(rows, "text", column, files=LocalFiles()),
        Scripted(blue),
        Plan(("attribute",)),
        tmp_path / "out",
        {},
        150,
    )
    assert sorted(os.listdir(tmp_path / "out" / "data")) == [path.name for path in shard_files(tmp_path / "out")]
    built = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(built.features["image"], datasets.Image) and built[0]["image"].size == (tiny.RESOLUTION,) * 2
    by_prompt = dict(zip(captions(250), stored, strict=True))
    bare = built.cast_column("image", datasets.Image(decode=False))
    assert len(bare) == 250 and all(row["image"]["bytes"] == by_prompt[row["prompt"]] for row in bare)
    assert [path.read_bytes() for path in files] == stored
    assert before is None or Path(rows.cache_files[0]["filename"]).stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("caption",), "caption_column 'caption' is not a column of the data set; it has text, size, picture"),
        (("text", "image"), "image_column 'image' is not a column"),
        (("text", None, "id"), "key_column 'id' is not a column"),
        (("size",), "caption_column 'size' must hold strings"),
    ],
)
def test_a_source_names_the_column_that_is_wrong(arguments, message):
    rows = datasets.Dataset.from_dict({"text": ["a"], "size": [1], "picture": tiny.make_images(1)})
    with pytest.raises(UserError, match=message):
        Source(rows, *arguments)


def test_a_source_without_rows_is_refused():
    with pytest.raises(UserError, match="holds no rows"):
        Source(datasets.Dataset.from_dict({"text": ["a"]}).select([]), "text")


@pytest.mark.parametrize(
    "name, content",
    [
        ("c.txt", "a red cat\na dog\n"),
        ("c.csv", "text,n\na red cat,1\na dog,2\n"),
        ("c.jsonl", '{"text": "a red cat"}\n{"text": "a dog"}\n'),
    ],
)
def test_captions_are_read_from_files(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / name).write_text(content)
    assert load_captions_file(str(tmp_path / name))["text"] == ["a red cat", "a dog"]


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe{", b'{"text": "unfinished', b"\n\n"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_a_captions_file_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch, suffix, content):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    try:
        Source(load_captions_file(str(path)), "text")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        raise AssertionError("nothing to edit was accepted")


def test_images_are_joined_by_key(tmp_path):
    build(source_of(captions(5)), Scripted(blue), Plan(("attribute",)), tmp_path / "texts", {})
    texts = datasets.load_dataset(str(tmp_path / "texts"), split="train", cache_dir=str(tmp_path / "cache"))
    pictures = datasets.Dataset.from_dict({"id": [9, 3, 0, 1], "picture": tiny.make_images(4)})
    pictures = pictures.cast_column("picture", datasets.Image())
    assert join_images(texts, pictures, "picture", "id", tmp_path / "joined", 2) == (3, 2)
    joined = datasets.load_dataset(str(tmp_path / "joined"), split="train", cache_dir=str(tmp_path / "cache"))
    assert joined["key"] == ["0", "1", "3"] and len(shard_files(tmp_path / "joined")) == 2
    for row in joined:
        place = pictures["id"].index(int(row["key"]))
        assert row["image"].tobytes() == pictures[place]["picture"].tobytes()
    twice = datasets.Dataset.from_dict({"id": [1, 1], "picture": tiny.make_images(2)})
    with pytest.raises(UserError, match="names two"):
        join_images(texts, twice, "picture", "id", tmp_path / "no", 2)


# ---- order, concurrency and repetition


def test_the_result_does_not_depend_on_the_order_of_answers(tmp_path):
    class Shuffled(WordEditor):
        """Answers so many requests at a time, in random order."""

        def __init__(self, seed: int):
            super().__init__()
            self.rng = random.Random(seed)

        def edit(self, requests):
            waiting = []
            for pair in super().edit(requests):
                waiting.append(pair)
                if len(waiting) > self.rng.randint(0, 30):
                    self.rng.shuffle(waiting)
                    yield waiting.pop()
            yield from self.rng.sample(waiting, len(waiting))

    states, tallies = [], []
    for seed in range(4):
        folder = tmp_path / str(seed)
        tallies.append(build(source_of(captions(100)), Shuffled(seed), Plan(num_negatives=2), folder, {}, 40))
        states.append(state(folder))
    assert states[1:] == states[:-1] and tallies[1:] == tallies[:-1]
    assert len(states[0][0]) == 96


def test_the_result_does_not_depend_on_concurrency(tmp_path):
    rng = random.Random(0)
    with ChatServer(lambda asked: moody(asked).after(rng.uniform(0, 0.004))) as server:
        for concurrency in (1, 7, 64):
            editor = ChatEditor("tiny-llm", (server.url,), concurrency=concurrency)
            build(source_of(captions(60)), editor, Plan(num_negatives=2), tmp_path / str(concurrency), {}, 25)
    assert state(tmp_path / "1") == state(tmp_path / "7") == state(tmp_path / "64")
    assert 0 < len(state(tmp_path / "1")[1]) < 60


def test_a_finished_folder_is_left_as_it_is(tmp_path):
    first = build(source_of(captions(50)), WordEditor(), Plan(), tmp_path, {"a": 1}, 20)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    editor = Scripted(blue)
    assert build(source_of(captions(50)), editor, Plan(), tmp_path, {"a": 1}, 20) == first
    assert editor.asked == [] and {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == before


def test_another_configuration_is_refused(tmp_path):
    build(source_of(captions(5)), Scripted(blue), Plan(), tmp_path, {"model": "a", "seed": 0, "weights": (1, 2)})
    build(source_of(captions(5)), Scripted(blue), Plan(), tmp_path, {"model": "a", "seed": 0, "weights": (1, 2)})
    with pytest.raises(UserError, match="model was 'a' and is 'b'; seed was 0 and is 1") as error:
        build(source_of(captions(5)), Scripted(blue), Plan(), tmp_path, {"model": "b", "seed": 1, "weights": (1, 2)})
    assert str(tmp_path) in str(error.value)
    with pytest.raises(UserError, match="rows_per_shard was 10000 and is 2"):
        build(
            source_of(captions(5)), Scripted(blue), Plan(), tmp_path, {"model": "a", "seed": 0, "weights": (1, 2)}, 2
        )


def test_running_again_asks_for_unanswered_rows_only(tmp_path):
    trouble = {(12, 0), (13, 0), (13, 1), (30, 0), (5, 1)}  # row 5 gets one of the two edits that it wants

    def answer(request):
        if (request.row, request.attempt) in trouble:
            return Answer(failure="APITimeoutError: Request timed out.")
        if request.row == 20:
            return "no idea"
        if request.row == 5 and request.attempt == 0:
            return json.dumps({"edits": [request.caption.replace("red", "blue"), "no"]})
        edited = [request.caption.replace("red", new) for new in ("blue", "pink")]
        fresh = [text for text in edited if text not in request.accepted]
        return json.dumps({"edits": fresh[: len(request.wanted)]})

    plan = Plan(("attribute",), num_negatives=2, max_attempts=2)
    first = Scripted(answer)
    tally = build(source_of(captions(40)), first, plan, tmp_path, {}, 10)
    assert (tally.kept, tally.failed) == (36, 4)
    trouble.clear()
    idle = Scripted(answer)
    build(source_of(captions(40)), idle, plan, tmp_path, {}, 10, retry_failed=False)
    assert idle.asked == []
    assert causes(tmp_path, unanswered=True) == {"APITimeoutError: Request timed out.": 3}
    assert causes(tmp_path).total() == 4
    second = Scripted(answer)
    tally = build(source_of(captions(40)), second, plan, tmp_path, {}, 10)
    assert sorted(second.asked) == [(5, 1), (12, 0), (13, 0), (30, 0)]
    assert (tally.kept, tally.failed, tally.captions) == (39, 1, 40)
    rows, failed = state(tmp_path)
    assert [int(row["key"]) for row in rows] == [row for row in range(40) if row != 20] and len(failed) == 1
    assert all(len(row["negative_prompts"]) == 2 for row in rows)
    fresh = build(source_of(captions(40)), Scripted(answer), plan, tmp_path / "fresh", {}, 10)
    assert state(tmp_path / "fresh") == (rows, failed) and fresh == tally


@pytest.mark.parametrize("rows_per_shard", [1000, 30])
def test_many_failures_in_a_row_end_the_run_and_few_do_not(tmp_path, rows_per_shard):
    down = Answer(failure="APIConnectionError: Connection error.")
    last = 2 * FAILURES_IN_A_ROW - 1

    def answer(request):
        if request.row < FAILURES_IN_A_ROW - 1 or FAILURES_IN_A_ROW <= request.row <= last:
            return down
        return blue(request)

    editor = Scripted(answer)
    with pytest.raises(UserError, match=f"failed {FAILURES_IN_A_ROW} times in a row, at last with 'APIConn") as error:
        build(source_of(captions(500)), editor, Plan(("attribute",)), tmp_path, {}, rows_per_shard)
    assert "\n" not in str(error.value) and len(editor.asked) == last + 1
    editor = Scripted(blue)
    tally = build(source_of(captions(500)), editor, Plan(("attribute",)), tmp_path, {}, rows_per_shard)
    assert tally.kept == 500 and len(editor.asked) == 499  # row 99 was answered


def test_progress_counts_up_and_includes_earlier_runs(tmp_path):
    seen = []
    build(source_of(captions(30)), Scripted(blue), Plan(("attribute",)), tmp_path, {}, 10, progress=seen.append)
    assert [tally.captions for tally in seen] == sorted(tally.captions for tally in seen) and seen[-1].captions == 30
    (tmp_path / "work" / "00001.report.json").unlink()
    seen.clear()
    total = build(
        source_of(captions(30)), Scripted(blue), Plan(("attribute",)), tmp_path, {}, 10, progress=seen.append
    )
    assert seen[0].captions == 30 and seen[-1] == total == Tally(30, 30, 0, 30, drawn=Counter(attribute=30))


# ---- killed runs


def moody(asked):
    """Sometimes answers badly, always the same way to the same question, and hangs up on some questions once."""
    task = asked.task
    number = zlib.crc32(json.dumps([task["caption"], len(task.get("unusable", ())), task["wanted"]]).encode())
    kind = number % 12
    if kind == 0:
        return completion('{"edits": [')
    if kind == 1:
        return completion("I'm sorry, but I can't help with that.")
    if kind == 2:
        return completion(json.dumps({"edits": [task["caption"]] * len(task["wanted"])}))
    if kind == 3:
        return completion(json.dumps({"edits": [None] + [edit["caption"] for edit in edits_of(asked)[1:]]}))
    if kind == 4:
        return completion(f"Here:\n```json\n{json.dumps(edits_of(asked))}\n```")
    return good(asked)


def edits_of(asked) -> list[dict]:
    return json.loads(json.loads(good(asked).body)["choices"][0]["message"]["content"])["edits"]


@pytest.mark.slow
def test_a_run_killed_many_times_ends_as_an_uninterrupted_one(tmp_path):
    rows, concurrency, negatives = 150, 8, 2
    rng = random.Random(11)
    unavailable: dict[str, int] = {}  # questions that were answered with 503 once, and the number of that request

    def behave(asked):
        question = json.dumps(asked.task)
        if zlib.crc32(question.encode()) % 9 == 0 and question not in unavailable:
            unavailable[question] = asked.number
            return refused(503, "busy", retry_after_ms=5)
        return moody(asked).after(0.008)

    with ChatServer(behave) as server:
        assert finish(start(chat_build, server.url, tmp_path / "whole", rows, 3, negatives)) == 0
    unavailable.clear()
    folder, kills, runs = tmp_path / "killed", 0, []
    with ChatServer(behave) as server:
        while True:
            asked_before, known = len(server.asked), journalled(folder)
            process = start(chat_build, server.url, folder, rows, concurrency, negatives)
            if kills < 10:
                moment = asked_before + rng.randint(1, 20)
                code = killed(process, lambda: len(server.asked), moment, rng.uniform(0, 0.012))
            else:
                code = finish(process)
            kills += code == -signal.SIGKILL
            time.sleep(0.02)  # what the killed process had sent may still come in
            runs.append((asked_before, len(server.asked), known))
            if code == 0:
                break
            assert code == -signal.SIGKILL
        assert kills >= 8

    assert state(folder) == state(tmp_path / "whole")
    keys = [int(row["key"]) for row in stream_texts(folder)] + [json.loads(line)["row"] for line in state(folder)[1]]
    assert sorted(keys) == list(range(rows)) and 0 < len(state(folder)[1]) < rows / 4
    assert sorted(os.listdir(folder)) == ["data", "failed.jsonl", "work"]

    number = {caption: row for row, caption in enumerate(captions(rows))}
    repeated = set(unavailable.values())
    repeats = 0
    for run, (begin, end, known) in enumerate(runs):
        after = runs[run + 1][2] if run + 1 < len(runs) else journalled(folder)
        requests = Counter(number[asked.caption] for asked in server.asked[begin:end] if asked.number not in repeated)
        lost = Counter({row: count - (after[row] - known[row]) for row, count in requests.items()})
        assert all(after[row] - known[row] <= requests[row] for row in after)
        assert set(lost.values()) <= {0, 1}  # at most the request in flight
        assert lost.total() <= (concurrency if run + 1 < len(runs) else 0)
        repeats += lost.total()
    assert repeats > 0  # the kills did hit requests in flight


@pytest.mark.slow
@pytest.mark.parametrize("images", [False, True])
def test_an_editor_killed_many_times_is_never_asked_again_what_was_journalled(tmp_path, images):
    rng = random.Random(5)
    rows, log, folder = 120, tmp_path / "asked", tmp_path / "killed"
    word_build(tmp_path / "whole", rows, None, 0.0, images)
    log.touch()
    kills = 0
    while True:
        lines, known = len(log.read_text().splitlines()), journalled(folder)
        process = start(word_build, folder, rows, log, 0.003, images)
        if kills < 10:
            moment = lines + rng.randint(1, 20)
            code = killed(process, lambda: log.read_text().count("\n"), moment, rng.uniform(0, 0.015))
        else:
            code = finish(process)
        kills += code == -signal.SIGKILL
        asked = [tuple(map(int, line.split())) for line in log.read_text().splitlines()[lines:]]
        assert all(attempt >= known[row] for row, attempt in asked)
        assert len(set(asked)) == len(asked)
        if code == 0:
            break
    assert kills >= 6
    assert state(folder) == state(tmp_path / "whole")
    assert sorted(os.listdir(folder / "data")) == sorted(os.listdir(tmp_path / "whole" / "data"))


@pytest.mark.slow
@pytest.mark.parametrize("images", [False, True])
def test_a_run_killed_at_any_rename_goes_on(tmp_path, images):
    rows = 50
    word_build(tmp_path / "whole", rows, None, 0.0, images)
    for after in (False, True):
        for moment in range(6):  # configuration, two shards with a report each, failed.jsonl
            folder = tmp_path / f"{after}{moment}"
            arguments = (folder, rows, None, 0.0, images)
            assert finish(start(word_build_killed_at, moment, after, *arguments)) == -signal.SIGKILL
            if moment == 5 and after:
                assert state(folder) == state(tmp_path / "whole")
            word_build(*arguments)
            assert state(folder) == state(tmp_path / "whole")
            assert sorted(os.listdir(folder / "data")) == sorted(os.listdir(tmp_path / "whole" / "data"))


@pytest.mark.slow
def test_a_run_killed_while_it_copies_images_leaves_nothing_behind(tmp_path):
    arguments = (tmp_path, 20, None, 0.0, True)
    assert finish(start(word_build_killed_embedding, *arguments)) == -signal.SIGKILL
    assert len(os.listdir(tmp_path / "data")) == 1  # something half done
    word_build(*arguments)
    assert os.listdir(tmp_path / "data") == ["train-00000-of-00001.parquet"]
    assert len(state(tmp_path)[0]) == 20


@pytest.mark.slow
def test_an_interrupted_run_stops_at_once_and_quietly(tmp_path):
    errors = tmp_path / "errors"
    with ChatServer(lambda asked: good(asked).after(0.01 if asked.number < 20 else 30)) as server:
        process = start(chat_build, server.url, tmp_path / "out", 60, 8, 1, errors)
        wait_for(lambda: server.in_flight == 8 and len(server.asked) >= 28)
        os.kill(process.pid, signal.SIGINT)
        interrupted = time.monotonic()
        assert finish(process) == 1 and time.monotonic() - interrupted < 25  # the answers would take 30 seconds
        known = journalled(tmp_path / "out")
        assert known.total() == 20
        server.behaviour = good
        before = len(server.asked)
        chat_build(server.url, tmp_path / "out", 60, 8, 1)
        later = {asked.caption for asked in server.asked[before:]}
    assert not later & {captions(60)[row] for row in known} and len(state(tmp_path / "out")[0]) == 60
    text = errors.read_text()
    assert "KeyboardInterrupt" in text
    assert "never retrieved" not in text and "destroyed" not in text and "Event loop" not in text


def test_two_runs_never_work_in_one_folder(tmp_path):
    log = tmp_path / "asked"
    process = start(word_build, tmp_path / "out", 120, log, 0.02)
    wait_for(log.exists)
    editor = Scripted(blue)
    with pytest.raises(UserError, match="is in use by another run") as error:
        build(source_of(captions(120)), editor, Plan(num_negatives=2), tmp_path / "out", {"rows": 120}, 40)
    assert str(tmp_path / "out") in str(error.value) and editor.asked == []
    process.kill()
    finish(process)
    word_build(tmp_path / "out", 120)  # the lock went with its process
    assert len(state(tmp_path / "out")[0]) + len(state(tmp_path / "out")[1]) == 120


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    few, many = 4_000, 17_000
    datasets.Dataset.from_dict({"text": captions(many)}).save_to_disk(tmp_path / "captions")
    peaks = {}
    for rows in (few, many):
        report = tmp_path / f"{rows}.json"
        assert finish(start(measured_build, tmp_path / "captions", tmp_path / str(rows), rows, 1_000, report)) == 0
        peaks[rows] = json.loads(report.read_text())
    assert peaks[many]["captions"] == many
    assert peaks[many]["peak"] - peaks[few]["peak"] < 6
