"""What changed is marked, nothing else is, and no caption can do more than be read."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from diffusers_tpo.negatives.language.words import words
from diffusers_tpo.negatives.preview import changed_spans, harmless, mark, preview_html, preview_terminal, segments


HOSTILE = (
    "<script>alert(1)</script> & <b onclick='x'>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %} &lt;",
    "[red]x[/red] [/] \\[link=https://x] :smile:",
    "\x1b[31mred\x1b[0m \x07 \x1b]8;;https://x\x1b\\ \x9b2J",
    "evil \u202egnp.exe\u2066",
    "👩‍🚀",
    "a lone \ud83d half",
    "قطة حمراء على طاولة",
    "line\nbreak\r\n\ttab\u2028end",
    "very long " * 1000,
    "",
)


def row(prompt: str, *edited: str, **other) -> dict:
    return {
        "key": "7",
        "prompt": prompt,
        "negative_prompts": list(edited),
        "principles": ["attribute"] * len(edited),
        "num_edits": [1] * len(edited),
        "editor": "rules",
    } | other


class Page(HTMLParser):
    """The tags of a page, its images, and the text of each paragraph with the marked parts in brackets."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.images, self.paragraphs, self.inside = set(), set(), [], [], False
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag == "p":
            self.paragraphs.append("")
            self.inside = True
        self.handle_data("⟦" if tag in ("mark", "u") else "")

    def handle_endtag(self, tag):
        self.handle_data("⟧" if tag in ("mark", "u") else "")
        self.inside = self.inside and tag != "p"

    def handle_data(self, data):
        if self.inside:
            self.paragraphs[-1] += data

    @property
    def texts(self) -> list[str]:
        """Of each row: prompt, mismatched prompts, key and editor; before them comes a line about the page."""
        return self.paragraphs[1:]


def shown(pieces) -> str:
    return "".join(f"⟦{text}⟧" if changed else text for text, changed in pieces)


def marked(before: str, after: str) -> tuple[str, str]:
    old, new = changed_spans(before, after)
    return shown(segments(before, old)), shown(segments(after, new))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a red  cube.", "a blue  cube.", ("a ⟦red⟧  cube.", "a ⟦blue⟧  cube.")),
        ("a cat on a mat", "two cats on a mat", ("⟦a cat⟧ on a mat", "⟦two cats⟧ on a mat")),
        ("a cube", "a cube, red", ("a cube", "a cube⟦, red⟧")),
        ("a big cube", "a cube", ("a ⟦big⟧ cube", "a cube")),
        ("it's  a dog’s toy", "it's  a cat’s toy", ("it's  a ⟦dog’s⟧ toy", "it's  a ⟦cat’s⟧ toy")),
        ("le café noir", "le café blanc", ("le café ⟦noir⟧", "le café ⟦blanc⟧")),
        ("猫 が 寝る", "犬 が 寝る", ("⟦猫⟧ が 寝る", "⟦犬⟧ が 寝る")),
        ("same", " same ", ("same", " same ")),
        ("", "x", ("", "⟦x⟧")),
    ],
)
def test_changed_words_are_marked(before, after, expected):
    assert marked(before, after) == expected


TEXTS = st.text(st.sampled_from("ab cé .'’\n👩‍🚀<"), max_size=30) | st.text(max_size=30)


@given(TEXTS, TEXTS)
def test_pieces_join_to_the_text_and_the_rest_is_common(before, after):
    pieces = [segments(text, spans) for text, spans in zip((before, after), changed_spans(before, after), strict=True)]
    assert ["".join(piece.text for piece in side) for side in pieces] == [before, after]
    assert all(piece.text for side in pieces for piece in side)
    same = [[word for piece in side if not piece.changed for word in words(piece.text)] for side in pieces]
    assert same[0] == same[1]


@given(TEXTS, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5))
def test_overlapping_ranges_still_join_to_the_text(text, ranges):
    spans = [(min(pair), max(pair)) for pair in ranges if max(pair) <= len(text)]
    pieces = segments(text, spans)
    assert "".join(piece.text for piece in pieces) == text
    where = [changed for piece, changed in pieces for _ in piece]
    assert where == [any(start <= i < end for start, end in spans) for i in range(len(text))]


def test_prompt_marks_what_any_edit_replaces():
    prompt, edits = mark(row("a red cube left of a ball", "a blue cube left of a ball", "a red cube right of a ball"))
    assert shown(prompt) == "a ⟦red⟧ cube ⟦left⟧ of a ball"
    assert [shown(edit.segments) for edit in edits] == ["a ⟦blue⟧ cube left of a ball", "a red cube ⟦right⟧ of a ball"]


def test_page_shows_rows_with_small_images(tmp_path):
    image = Image.new("RGBA", (1000, 500), "red")
    rows = [row("a red cube", "a blue cube", image=image), row("a dog", "a cat", image=None), row("a hat", "a cap")]
    preview_html(iter(rows), tmp_path / "page.html", "Title & <more>")
    page, text = Page(tmp_path / "page.html"), (tmp_path / "page.html").read_text()
    assert page.texts == [
        *("a ⟦red⟧ cube", "a ⟦blue⟧ cube", "7 · rules"),
        *("a ⟦dog⟧", "a ⟦cat⟧", "7 · rules"),
        *("a ⟦hat⟧", "a ⟦cap⟧", "7 · rules"),
    ]
    (source,) = page.images
    small = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))
    assert (small.format, small.size, image.size) == ("JPEG", (256, 128), (1000, 500))
    assert "<title>Title &amp; &lt;more&gt;</title>" in text and "prefers-color-scheme: dark" in text
    assert 'data-principle="attribute"><b>attribute</b> 1 edit<' in text
    assert not re.search(r"https?://|url\(|@import", text)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "I;16", "CMYK", "F"])
def test_any_image_has_a_thumbnail(tmp_path, mode):
    preview_html([row("a", "b", image=Image.new(mode, (5, 5)))], tmp_path / "page.html", "")
    assert len(Page(tmp_path / "page.html").images) == 1


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_captions_are_only_text_on_the_page(tmp_path, text):
    rows = [row(text, f"{text} more", key=text, editor=text, principles=[text])]
    preview_html(rows, tmp_path / "page.html", text)
    page = Page(tmp_path / "page.html")
    assert page.texts[0] == harmless(text)
    assert page.texts[1].replace("⟦", "").replace("⟧", "") == harmless(f"{text} more")
    assert page.tags <= set("html head meta title style body header h1 p u mark article div ul li span b".split())
    assert not {name for name in page.attributes if name.startswith("on")} | (page.attributes & {"src", "href"})
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", (tmp_path / "page.html").read_text()
    )


@given(TEXTS, TEXTS)
@settings(max_examples=50, deadline=None)
def test_page_keeps_the_texts(tmp_path_factory, before, after):
    path = tmp_path_factory.getbasetemp() / "page.html"
    preview_html([row(before, after)], path, "")
    texts = [re.sub("[⟦⟧]", "", text) for text in Page(path).texts[:2]]
    assert texts == [harmless(text) for text in (before, after)]


def printed(rows, width: int = 100_000) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=width)
    preview_terminal(rows, console)
    return console.file.getvalue()


COLOUR = re.compile(r"\x1b\[[\d;]*m")


def test_terminal_colours_what_changed():
    output = printed([row("a red cube", "a blue cube")])
    assert COLOUR.sub("", output).split("\n") == ["", "7  a red cube", "  attribute  1 a blue cube", ""]
    assert re.search(r"\x1b\[1;33mblue\x1b\[0m", output) and re.search(r"\x1b\[1;4mred\x1b\[0m", output)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_terminal_takes_captions_for_text(text):
    output = COLOUR.sub("", printed([row(text, f"{text} more", key=text, principles=[text])]))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", output)
    lines = output.split("\n")
    assert len(lines) == 4 and lines[3] == ""
    assert lines[1] == f"{harmless(text)}  {harmless(text)}"
    assert lines[2].rstrip(" ") == f"  {harmless(text):<10} 1 {harmless(f'{text} more')}"


def test_controls_are_visible():
    assert harmless("a\x1b\x00\n\x9b\u202e\ud83d👩‍🚀b") == "a␛␀␊���👩‍🚀b"
