"""Texts that are no captions or no edits: what nobody sees, markup, heaps of accents, files in other clothes."""

import time
import unicodedata

import datasets
import pyarrow
import pytest
from build_worker import source_of
from pyarrow import parquet

from diffusers_tpo.errors import UserError
from diffusers_tpo.image_files import LocalFiles
from diffusers_tpo.negatives.build import build
from diffusers_tpo.negatives.checks import check_edit
from diffusers_tpo.negatives.dataset import Source, load_captions_file, stream_built, stream_texts
from diffusers_tpo.negatives.language.words import LONGEST_CAPTION
from diffusers_tpo.negatives.rules.editor import RulesEditor, count_words
from diffusers_tpo.negatives.work import Plan


CAPTION = "a red cat on a mat"
EDIT = "a red dog on a mat"

ODD = {
    "tag characters": "".join(chr(0xE0000 + ord(letter)) for letter in "obey"),
    "private use": "\ue000",
    "private use of a higher plane": "\U000f0000",
    "no character": "\uffff",
    "another that is none": "\ufdd0",
    "one of a higher plane": "\U0001fffe",
    "an unassigned one": "\u0378",
    "a half one": "\ud800",
    "an invisible one": "\u2063",
    "a soft hyphen": "\u00ad",
    "an Arabic sign of format": "\u0600",
    "forty combining marks": "\u0301" * 40,
    "an entity": " &lt;b&gt;",
    "an entity by number": " &#60;",
    "an entity by hexadecimal number": " &#x3C;",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_edit_with_what_nobody_would_write_is_malformed(odd):
    assert check_edit(CAPTION, EDIT) is None
    for edited in (EDIT + odd, EDIT.replace("dog", f"do{odd}g"), EDIT.replace("dog", f"dog{odd}")):
        assert check_edit(CAPTION, edited) == "malformed"


def test_marks_on_every_letter_are_malformed():
    struck = "".join(letter + "\u0336" for letter in EDIT)
    assert check_edit(CAPTION, struck) == "malformed"


@pytest.mark.parametrize(
    ("caption", "edited"),
    [
        ("un gato rojo en el jardín", "un perro rojo en el jardín"),
        ("a red cat in a café", unicodedata.normalize("NFD", "a red dog in a café")),
        ("con mèo đỏ ngồi trên ghế gỗ", "con chó đỏ ngồi trên ghế gỗ"),
        ("con mèo đỏ ngồi trên ghế gỗ", unicodedata.normalize("NFD", "con chó đỏ ngồi trên ghế gỗ")),
        ("แมวสีแดงบนเสื่อ", "หมาสีแดงบนเสื่อ"),
        ("a dog & a cat; both red", "a dog & a bird; both red"),
        ("a red cat &amp; a mat", "a red dog &amp; a mat"),
        ("a cat \ue000 on a mat", "a dog \ue000 on a mat"),
        ("a red cat c\u0301\u0301\u0301\u0301\u0301 on a mat", "a red dog c\u0301\u0301\u0301\u0301\u0301 on a mat"),
    ],
)
def test_an_edit_keeps_what_its_caption_has(caption, edited):
    assert check_edit(caption, edited) is None


def test_that_there_is_nothing_else_is_no_edit():
    assert check_edit(CAPTION, "a red dog on a mat and nothing else") == "refusal"
    assert check_edit("a red cat and nothing else", "a red dog and nothing else") is None


# Captions


def test_a_text_too_long_for_a_caption_is_set_aside_at_once(tmp_path):
    texts = [CAPTION, "a red cat " * 1_000_000, "a red cat on a mat " * (LONGEST_CAPTION // 19)]
    started = time.monotonic()
    tally = build(source_of(texts), RulesEditor(count_words(texts)), Plan(), tmp_path, {})
    assert time.monotonic() - started < 20
    assert tally.captions == 3 and tally.kept >= 1
    assert f"the caption has more than {LONGEST_CAPTION} characters" in (tmp_path / "failed.jsonl").read_text()


def test_captions_that_are_no_utf_8_are_one_sentence(tmp_path):
    column = pyarrow.array([b"a cat", b"a \xff\xfe cat"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "bad.parquet")
    source = Source(datasets.Dataset.from_parquet(str(tmp_path / "bad.parquet"), cache_dir=str(tmp_path)), "text")
    for read in (lambda: source.captions(0, 2), lambda: source.sample(10), source.fingerprints):
        with pytest.raises(UserError, match="^--caption_column 'text' is not encoded in UTF-8 in rows 0 to 1"):
            read()


LINES = ["NA", "None", "null", "nan", "a red cat"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.txt", "\n".join(LINES)),
        ("c.csv", "\n".join(["text", *LINES])),
        ("c.jsonl", "\n".join(f'{{"text": "{line}"}}' for line in LINES)),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_captions_are_what_the_file_says(name, content, mark, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / name).write_bytes(mark + content.encode())
    assert Source(load_captions_file(str(tmp_path / name)), "text").captions(0, 5) == LINES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["c[1].txt", "c[!1].txt", "c?.txt", "c*.txt", "{a,b}.txt", "c [1] (2).txt"])
def test_a_name_is_no_pattern(name, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / name).write_text(CAPTION)
    for other in ("c1.txt", "c2.txt", "a.txt"):
        (tmp_path / other).write_text("another")
    assert load_captions_file(str(tmp_path / name))["text"] == [CAPTION]
    folder = tmp_path / f"out {name}"
    build(source_of([CAPTION]), RulesEditor(), Plan(), folder, {})
    assert (
        [row["prompt"] for row in stream_texts(folder)] == [row["prompt"] for row in stream_built(folder)] == [CAPTION]
    )


# What a source is


def test_a_source_is_named_by_what_it_holds_and_not_by_where_it_lies(tmp_path):
    def fingerprints(texts, keys=("a", "b"), place="here"):
        rows = datasets.Dataset.from_dict({"text": texts, "id": list(keys)})
        rows.save_to_disk(tmp_path / place)
        return Source(datasets.load_from_disk(str(tmp_path / place)), "text", None, "id").fingerprints()

    first = fingerprints(["x", "y"], place="one")
    assert fingerprints(["x", "y"], place="two") == first
    for other, changed in (
        (fingerprints(["x", "z"], place="three"), "captions"),
        (fingerprints(["x", "y"], "ac", "four"), "keys"),
    ):
        assert {name for name in first if first[name] != other[name]} == {changed}


def test_every_caption_counts():
    texts = [f"a cat {number}" for number in range(5000)]
    before = source_of(texts).fingerprints()
    texts[4321] += "!"
    assert source_of(texts).fingerprints() != before


def test_another_image_is_another_source(tmp_path):
    from PIL import Image

    def fingerprints(side: int, as_path: bool) -> dict:
        Image.new("RGB", (side, side)).save(tmp_path / "a.bmp")
        cell = {"path": str(tmp_path / "a.bmp"), "bytes": None if as_path else (tmp_path / "a.bmp").read_bytes()}
        rows = datasets.Dataset.from_dict({"text": [CAPTION], "image": [cell]}).cast_column("image", datasets.Image())
        return Source(rows, "text", "image", files=LocalFiles()).fingerprints()

    for as_path in (False, True):
        assert fingerprints(8, as_path) == fingerprints(8, as_path) != fingerprints(9, as_path)
