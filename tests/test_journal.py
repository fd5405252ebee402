"""What a journal or report holds is checked before it is written and again when it is read: no line costs a build."""

import json
import shutil
from dataclasses import replace

import pytest
from build_worker import WordEditor, captions, source_of, word_build
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusers_tpo.chat import LONGEST_READ, MOST_TOKENS, Answer
from diffusers_tpo.errors import UserError
from diffusers_tpo.negatives.build import build
from diffusers_tpo.negatives.dataset import stream_texts
from diffusers_tpo.negatives.editors import Edits
from diffusers_tpo.negatives.journal import Journal, Record, read_records
from diffusers_tpo.negatives.rules.editor import RulesEditor
from diffusers_tpo.negatives.work import CaptionWork, Plan


REQUEST = CaptionWork(3, "a red cat", Plan()).request()
GOOD = {"row": 3, "attempt": 0, "slots": [0], "answer": "x", "tokens": [1, 2]}
HUGE = 10**4000

# As JSON texts, since some of them no writer would make.
WRONG = {
    "no JSON": "{oops",
    "no object": "[3, 0]",
    "null": "null",
    "a number": "7",
    "nothing": "",
    "zero bytes": "\0" * 50,
    "no answer": json.dumps({"row": 3, "attempt": 0, "slots": [0], "tokens": [1, 2]}),
    "an answer that is a number": json.dumps(GOOD | {"answer": 5}),
    "an answer that is null": json.dumps(GOOD | {"answer": None}),
    "captions that are numbers": json.dumps(GOOD | {"answer": [5]}),
    "a row that is a text": json.dumps(GOOD | {"row": "3"}),
    "a row that is true": json.dumps(GOOD | {"row": True}),
    "a row of another shard": json.dumps(GOOD | {"row": 4711}),
    "a row that is a list": json.dumps(GOOD | {"row": [3]}),
    "an attempt that is none": json.dumps(GOOD | {"attempt": -1}),
    "a later attempt": json.dumps(GOOD | {"attempt": 5}),
    "no tokens": json.dumps(GOOD | {"tokens": None}),
    "no slots": json.dumps(GOOD | {"slots": None}),
    "a slot that is a text": json.dumps(GOOD | {"slots": ["0"]}),
    "three tokens": json.dumps(GOOD | {"tokens": [1, 2, 3]}),
    "tokens as texts": json.dumps(GOOD | {"tokens": ["1", "2"]}),
    "tokens that are not finite": '{"row": 3, "attempt": 0, "slots": [0], "answer": "x", "tokens": [NaN, Infinity]}',
    "tokens of 4,000 digits": json.dumps(GOOD | {"tokens": [HUGE, 1]}),
    "tokens of 5,000 digits": json.dumps(GOOD | {"tokens": [1, 2]}).replace("2]", "2" * 5000 + "]"),
    "a long answer": json.dumps(GOOD | {"answer": "x" * (LONGEST_READ + 1)}),
    "deep nesting": "[" * 100_000,
}


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG)
def test_a_damaged_line_is_set_aside_and_asked_again(line, tmp_path, caplog):
    word_build(tmp_path / "whole", 30)
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    for path in (tmp_path / "out" / "data").iterdir():
        path.unlink()
    journal = tmp_path / "out" / "work" / "00000.journal.jsonl"
    lines = journal.read_text().splitlines()
    place = next(number for number, text in enumerate(lines) if json.loads(text)["row"] == 3)
    lost = lines[place]
    lines[place] = line
    journal.write_bytes("".join(f"{text}\n" for text in lines).encode())

    word_build(tmp_path / "out", 30, tmp_path / "asked")
    assert (tmp_path / "asked").read_text() == "3 0\n"
    assert list(stream_texts(tmp_path / "out")) == list(stream_texts(tmp_path / "whole"))
    assert (tmp_path / "out" / "work" / "00000.journal.damaged").read_bytes() == line.encode() + b"\n"
    assert "1 damaged lines of" in caplog.text
    assert sorted(journal.read_text().splitlines()) == sorted([*lines[:place], lost, *lines[place + 1 :]])


def test_what_followed_on_a_lost_answer_is_asked_again_too(tmp_path):
    word_build(tmp_path / "out", 10)
    for path in (tmp_path / "out" / "data").iterdir():
        path.unlink()
    journal = tmp_path / "out" / "work" / "00000.journal.jsonl"
    journal.write_text(journal.read_text().replace('{"row": 5, "attempt": 0', '{"row": 5, "attempt": null', 1))
    word_build(tmp_path / "out", 10, tmp_path / "asked")
    assert (tmp_path / "asked").read_text() == "5 0\n5 1\n"
    word_build(tmp_path / "whole", 10)
    assert list(stream_texts(tmp_path / "out")) == list(stream_texts(tmp_path / "whole"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner, max_size=4),
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(VALUES | st.fixed_dictionaries({name: VALUES | st.just(value) for name, value in GOOD.items()})))
def test_any_lines_are_records_or_damaged(values):
    lines = [json.dumps(value).encode() for value in values]
    records, damaged = read_records(lines, {3})
    assert len(records) + len(damaged) == len(lines)
    assert [record.attempt for record in records] == list(range(len(records)))
    assert read_records([record.line() for record in records], {3}) == (records, [])


@pytest.mark.parametrize(
    "answer",
    [
        Answer("x", HUGE, 1),
        Answer("x", 1, MOST_TOKENS + 1),
        Answer("x", -1),
        Answer("x", 1.5),
        Answer("x", True),
        Edits((5,)),
    ],
    ids=lambda answer: str(answer)[:40],
)
def test_nothing_is_written_that_could_not_be_read_again(answer, tmp_path):
    with Journal(tmp_path / "j", {3}) as journal:
        with pytest.raises((ValueError, TypeError)):
            journal.append(REQUEST, answer)
        journal.append(REQUEST, Answer("x"))
    with Journal(tmp_path / "j", {3}) as journal:
        assert journal.records == [Record(3, 0, "x")]


def test_captions_of_an_editor_come_back_as_they_were(tmp_path):
    edits = Edits(("a blue cat", None, "ü \ud800"))
    with Journal(tmp_path / "j", {3}) as journal:
        assert journal.append(REQUEST, edits).answer == edits.captions
    with Journal(tmp_path / "j", {3}) as journal:
        assert journal.records == [Record(3, 0, edits.captions)]


def test_captions_of_a_wrong_number_are_no_answer(tmp_path):
    class Short:
        name = "short"

        def edit(self, requests):
            for request in requests:
                yield request, Edits(("a blue cat",) if request.attempt else ())

    texts = ["a red cat"]
    tally = build(source_of(texts), Short(), Plan(("attribute",)), tmp_path / "out", {})
    assert (tally.kept, tally.requests, tally.rejected["malformed"]) == (1, 0, 1)  # no model was asked


REPORTS = {
    "no JSON": "{",
    "no object": "[]",
    "empty": "{}",
    "no tally": '{"tally": 5, "failed": [], "unanswered": 0}',
    "a tally without counts": '{"tally": {}, "failed": [], "unanswered": 0}',
    "failed that is no list": '{"tally": null, "failed": 7, "unanswered": 0}',
}


@pytest.mark.parametrize("content", REPORTS.values(), ids=REPORTS)
def test_a_damaged_report_is_made_again_from_the_journal(content, tmp_path):
    word_build(tmp_path / "out", 60)
    report = tmp_path / "out" / "work" / "00001.report.json"
    before, rows = report.read_text(), list(stream_texts(tmp_path / "out"))
    report.write_text(content)
    word_build(tmp_path / "out", 60, tmp_path / "asked")
    assert not (tmp_path / "asked").exists()
    assert report.read_text() == before and list(stream_texts(tmp_path / "out")) == rows


def test_counts_in_a_report_are_counts(tmp_path):
    word_build(tmp_path / "out", 10)
    report = tmp_path / "out" / "work" / "00000.report.json"
    good = json.loads(report.read_text())
    for wrong in (-1, 1.5, "5", None, True, [1]):
        report.write_text(json.dumps(good | {"tally": good["tally"] | {"requests": wrong}}))
        word_build(tmp_path / "out", 10)
        assert json.loads(report.read_text()) == good


# Folders


def test_a_journal_that_was_deleted_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers_tpo.negatives.journal.SYNC_SECONDS", 0)
    with pytest.raises(UserError, match="deleted while the run wrote to it"):
        with Journal(tmp_path / "out" / "j", {3}) as journal:
            journal.append(REQUEST, Answer("x"))
            shutil.rmtree(tmp_path / "out")
            journal.append(replace(REQUEST, attempt=1), Answer("y"))


@pytest.mark.parametrize(
    "name", ["data/train-00000-of-00009.parquet", "data/notes.txt", "README.md", "audit.json", "failed.jsonl"]
)
def test_what_no_run_has_written_is_neither_counted_nor_overwritten(name, tmp_path):
    foreign = tmp_path / "out" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("foreign")
    editor = WordEditor(tmp_path / "asked")
    with pytest.raises(UserError, match=f"--output_dir .* holds '{name}', which this run has not written"):
        build(source_of(captions(5)), editor, Plan(), tmp_path / "out", {}, 2)
    assert foreign.read_text() == "foreign" and not (tmp_path / "asked").exists()
    foreign.unlink()
    build(source_of(captions(5)), editor, Plan(), tmp_path / "out", {}, 2)
    if name.startswith("data"):
        foreign.write_text("foreign")
        with pytest.raises(UserError, match="which this run has not written"):
            build(source_of(captions(5)), editor, Plan(), tmp_path / "out", {}, 2)


def test_rules_ask_no_model_and_their_journal_is_read_back(tmp_path):
    whole = build(source_of(captions(20)), RulesEditor(), Plan(num_negatives=2), tmp_path / "out", {})
    rows = list(stream_texts(tmp_path / "out"))
    (tmp_path / "out" / "work" / "00000.report.json").unlink()
    assert build(source_of(captions(20)), RulesEditor(), Plan(num_negatives=2), tmp_path / "out", {}) == whole
    assert list(stream_texts(tmp_path / "out")) == rows
