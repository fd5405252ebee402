"""A report shows all that it is given, as text that can do nothing, on one page that needs nothing."""

import base64
import io
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from PIL import Image

from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation import plots
from diffusers_tpo.evaluation.plots import Curves, Line, Scatter, draw_curves, draw_scatter, safe_name
from diffusers_tpo.evaluation.report import Example, Report, Table, print_report, write_report
from diffusers_tpo.show import harmless, shorten


pytestmark = pytest.mark.filterwarnings("error:::diffusers_tpo", "error::UserWarning", "error::RuntimeWarning")

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
VOID = {"meta", "img", "source", "br"}
HOSTILE = (
    "<script>alert(1)</script> & <b onclick='x'>",
    '"><img src=https://x onerror=alert(1)>',
    "</title></style>{{ 7 * 7 }} {% raw %} &lt;",
    "\x1b[31mred\x1b[0m \x07 \x1b]8;;https://x\x1b\\ \x9b2J",
    "evil \u202egnp.exe\u2066",
    "a lone \ud83d half",
    "قطة حمراء على طاولة",
    "line\nbreak\r\n\ttab\u2028end | pipe",
    "$x_$ and $\\frac$ \\$5 _ %",
    "_hidden",
    "very long " * 1000,
    "x" * 10_000,
    "猫が寝る",
)
LINE = Line("tdpo", [0, 100, 200], [0.1, 0.2, 0.3], [0.05, 0.1, 0.2], [0.15, 0.3, 0.4])
CURVES = Curves("curve", "Score over training", "step", "score", [LINE])
SCATTER = Scatter(
    "points", "Does it predict?", "preference", "score", [0, 1, 2, 3], [1, 3, 2, 4], ["a", "a", "b", "b"], "r = 0.8"
)
EMPTY = Report("", {}, [], [], [], [], [], [])


class Page(HTMLParser):
    """The elements of a page with their attributes and texts; asserts that every element is closed in turn."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.open = [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag: str) -> list[tuple[dict, str]]:
        return [(attributes, text) for name, attributes, text in self.elements if name == tag]

    def texts(self, tag: str) -> list[str]:
        return [text for _, text in self.all(tag)]


def page(report: Report, folder) -> Page:
    write_report(report, folder)
    return Page(folder / "report.html")


def picture(uri: str) -> Image.Image:
    kind, content = re.fullmatch(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)", uri).groups()
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert image.format.lower() == kind
    return image


def drawn(draw, plot, **options) -> Image.Image:
    file = io.BytesIO()
    draw(plot, file, **options)
    return Image.open(file).convert("RGB")


def share(image: Image.Image, colour: str, box=(0, 0, 1, 1)) -> float:
    """The share of a part of the image (left, top, right, bottom from 0 to 1) that is close to a colour."""
    width, height = image.size
    part = image.crop((int(box[0] * width), int(box[1] * height), int(box[2] * width), int(box[3] * height)))
    target = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.abs(np.asarray(part, dtype=int) - target).max(axis=-1) < 12).mean())


@pytest.fixture
def images(tmp_path):
    """Files of images: tiny, large, not whole, not an image."""
    files = {name: tmp_path / f"{name}.png" for name in ("tiny", "large", "cut", "text")}
    Image.new("RGB", (32, 32), "red").save(files["tiny"])
    noise = np.random.default_rng(0).integers(256, size=(400, 1000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(files["large"])
    files["cut"].write_bytes(files["large"].read_bytes()[:5000])
    files["text"].write_text("no image")
    return files


@pytest.fixture
def figure(monkeypatch):
    """The figures that are drawn, laid out, in the order of drawing."""
    figures, save = [], plots._save

    def keep(figure, path):
        save(figure, path)
        figures.append(figure)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


def test_page_holds_everything_in_its_order(tmp_path, images):
    table = Table("Scores", "Over 9 prompts.", ["model", "clip", "note"], [["base", "0.3", "x"], ["tdpo", "0.4", "y"]])
    gain = Example("a red cube", "0.2 to 0.6", [("base", images["tiny"], "0.2"), ("tdpo", images["large"], "0.6")])
    loss = Example("a blue ball", "", [("base", None, "0.5")])
    report = Report(
        *("My report", {"seed": "7", "prompts": "9"}, ["One is odd."]),
        *([table], [CURVES], [SCATTER], [gain], [loss]),
    )
    shown = page(report, tmp_path / "new" / "folder")
    assert shown.all("html")[0][0] == {"lang": "en"}
    assert shown.texts("title") == shown.texts("h1") == ["My report"]
    assert shown.texts("h2") == ["Warning", "Scores", "Largest gains", "Largest losses"]
    assert list(zip(shown.texts("dt"), shown.texts("dd"), strict=True)) == [("seed", "7"), ("prompts", "9")]
    assert "One is odd." in shown.texts("aside")[0]
    assert shown.texts("th") == ["model", "clip", "note", "base", "tdpo"] and shown.texts("td") == [
        *("0.3", "x"),
        *("0.4", "y"),
    ]
    words = [
        "My report",
        "seed",
        "One is odd.",
        "Over 9 prompts.",
        "Lines of",
        "4 points of",
        "a red cube",
        "0.2 to 0.6",
    ]
    words += ["Largest losses</h2>", "a blue ball"]
    places = [shown.source.index(word, shown.source.index("<main") if i else 0) for i, word in enumerate(words)]
    assert places == sorted(places)
    captions = [text.split() for text in shown.texts("figcaption")[2:]]
    assert captions == [["base", "0.2"], ["tdpo", "0.6"], ["base", "0.5"]]
    assert [text.strip() for _, text in shown.all("div") if text.strip() == "missing"] == ["missing"]


def test_page_needs_no_other_file_and_no_script(tmp_path, images):
    example = Example("a", "", [("base", images["tiny"], "")])
    shown = page(replace(EMPTY, curves=[CURVES], scatters=[SCATTER], gains=[example]), tmp_path)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _, _ in shown.elements}
    assert not re.search(r"https?:|url\(|@import| on\w+=", shown.source)
    assert "default-src 'none'" in shown.source and "prefers-color-scheme: dark" in shown.source
    assert {attributes["name"] for attributes, _ in shown.all("meta") if "name" in attributes} == {"viewport"}
    for attributes, _ in shown.all("img"):
        picture(attributes["src"])
        assert attributes["alt"]
    ids = [attributes["id"] for _, attributes, _ in shown.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"] for attributes, _ in shown.all("a")} == {f"#{name}" for name in ids}
    assert {path.name for path in tmp_path.iterdir() if path.suffix not in (".png",)} == {"plots", "report.html"}


def test_plots_are_on_the_page_and_in_files(tmp_path):
    curves = [replace(CURVES, name=name) for name in ("a/b", "a-b", "../A-B", "")]
    shown = page(replace(EMPTY, curves=curves, scatters=[replace(SCATTER, name="a-b")]), tmp_path)
    names = ["a-b.png", "a-b-2.png", "A-B-3.png", "plot.png", "a-b-4.png"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(names)
    for (attributes, _), (dark, _), name in zip(shown.all("img"), shown.all("source"), names, strict=True):
        light = picture(attributes["src"])
        assert light == Image.open(tmp_path / "plots" / name) and light != picture(dark["srcset"])
        assert dark["media"] == "(prefers-color-scheme: dark)"
        assert light.convert("L").resize((1, 1)).getpixel((0, 0)) > 200
        assert picture(dark["srcset"]).convert("L").resize((1, 1)).getpixel((0, 0)) < 80


def test_images_fit_the_page(tmp_path, images):
    shown = page(
        replace(EMPTY, gains=[Example("a", "", [(name, path, "1") for name, path in images.items()])]), tmp_path
    )
    (tiny, _), (large, _) = shown.all("img")
    assert (tiny["class"], tiny["alt"]) == ("pixels", "tiny: a") and "class" not in large
    assert (picture(tiny["src"]).format, picture(tiny["src"]).size) == ("PNG", (32, 32))
    assert picture(tiny["src"]).getpixel((5, 5)) == (255, 0, 0)
    assert (picture(large["src"]).format, picture(large["src"]).size) == ("JPEG", (512, 205))
    holes = [attributes for attributes, _ in shown.all("div") if attributes.get("class") == "hole"]
    assert len(holes) == 2 and len(shown.texts("figcaption")) == 4
    assert ".pixels { image-rendering: pixelated; }" in shown.source


def test_broken_files_are_missing(tmp_path, images):
    """Cut or changed anywhere, a file is shown or missing, but it stops nothing."""
    whole, rng = images["tiny"].read_bytes(), np.random.default_rng(0)
    broken = [whole[:length] for length in range(0, len(whole), 3)]
    for _ in range(60):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] = rng.integers(256)
        broken.append(bytes(changed))
    files = [tmp_path / f"{number}.png" for number in range(len(broken))]
    for file, content in zip(files, broken, strict=True):
        file.write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    files += [tmp_path / "folder.png", tmp_path / "nowhere.png"]
    shown = page(replace(EMPTY, losses=[Example("a", "", [("m", file, "") for file in files])]), tmp_path / "out")
    holes = shown.source.count('<div class="hole">')
    assert holes + len(shown.all("img")) == len(files) and holes >= len(whole) // 3


def test_figures_are_set_as_figures(tmp_path):
    header = ["model", "mean", "change", "wins", "empty", "prompt", "unknown"]
    rows = [
        ["3d", "0.31 [0.2, inf]", "−0.1 ± 0.2*", "7 of 20", "", "3 red cubes", "nan"],
        ["sd 1.5", "1e-05", "+3.2 %", "12 / 20", "", "2", "-inf"],
    ]
    shown = page(replace(EMPTY, tables=[Table("t", "", header, rows), Table("none", "", ["a"], [])]), tmp_path)
    cells = [(attributes, text) for tag, attributes, text in shown.elements if tag in ("th", "td")]
    numeric = [text for attributes, text in cells if attributes.get("class") == "number"]
    assert numeric == ["mean", "change", "wins", *rows[0][1:4], *rows[1][1:4]]
    assert [attributes["scope"] for attributes, _ in shown.all("th")] == ["col"] * 7 + ["row"] * 2
    assert "No rows." in shown.texts("p")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_only_text(tmp_path, capsys, images, text):
    table = Table(text, text, [text, "n"], [[text, "1"]])
    example = Example(text, text, [(text, images["tiny"], text), (text, None, text)])
    report = Report(text, {text: text}, [text], [table], [], [], [example], [example])
    shown = page(report, tmp_path / "out")
    clean = harmless(text)
    for tag, number in {"title": 1, "h1": 1, "dt": 1, "dd": 1, "li": 1, "td": 0}.items():
        assert shown.texts(tag)[:number] == [clean] * number
    assert shown.texts("th") == [clean, "n", clean]
    assert shown.texts("p") == [clean] * 5
    assert [text.strip() for text in shown.texts("figcaption")] == [f"{clean} {clean}".strip()] * 4
    assert not {"script", "b onclick"} & {tag for tag, _, _ in shown.elements} and len(shown.all("img")) == 2
    assert not CONTROLS.search(shown.source)
    print_report(report)
    output = capsys.readouterr().out
    assert not CONTROLS.search(output)
    lines = output.splitlines()
    assert lines[:3] == [clean, "", f"warning: {clean}"] and len(lines) == 10


def test_hostile_texts_do_not_break_a_plot(tmp_path):
    lines = [replace(LINE, label=text) for text in HOSTILE]
    curves = [Curves(text, text, text, text, lines if text == HOSTILE[0] else []) for text in HOSTILE[:-1]]
    scatter = Scatter(HOSTILE[-1], *["$_$ \ud83d"] * 3, range(len(HOSTILE)), range(len(HOSTILE)), HOSTILE, "\x1b$")
    shown = page(replace(EMPTY, curves=[curves[0], curves[3]], scatters=[scatter]), tmp_path)
    assert len(shown.all("img")) == 3 and not CONTROLS.search(shown.source)
    alt = shown.all("img")[0][0]["alt"]
    assert alt == harmless(
        f"{HOSTILE[0]}. Lines of {HOSTILE[0]} over {HOSTILE[0]}: {', '.join(shorten(t, 60) for t in HOSTILE)}."
    )
    for name in (safe_name(text) for text in HOSTILE):
        assert re.fullmatch(r"[\w-]{1,80}", name, re.A)


def test_terminal_shows_warnings_and_aligned_tables(capsys):
    rows = [["base", "0.3"], ["a name that is far too long for a column of a terminal, really", "0.25"]]
    report = replace(EMPTY, title="Report", warnings=["w1", "w2"], tables=[Table("T", "N", ["model", "clip"], rows)])
    print_report(report)
    assert capsys.readouterr().out == (
        "Report\n\nwarning: w1\nwarning: w2\n\nT\nN\n\n"
        "| model                                            | clip |\n"
        "| ------------------------------------------------ | ---- |\n"
        "| base                                             | 0.3  |\n"
        "| a name that is far too l…n of a terminal, really | 0.25 |\n"
    )


def test_terminal_without_unicode_still_shows_the_report(monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    print_report(replace(EMPTY, title="0.3 ± 0.1"))
    narrow.flush()
    assert narrow.buffer.getvalue() == b"0.3 ? 0.1\n"


def test_an_empty_report_is_a_page(tmp_path, capsys):
    shown = page(EMPTY, tmp_path)
    assert shown.texts("h1") == ["Report"] and not {"dl", "aside", "nav", "section"} & {e[0] for e in shown.elements}
    print_report(EMPTY)
    assert capsys.readouterr().out == "\n"


def test_an_old_page_is_replaced_whole(tmp_path):
    (tmp_path / "report.html").write_text("old")
    assert "old" not in page(replace(EMPTY, title="new"), tmp_path).source
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plots", "report.html"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Table("T", "", ["a", "b"], [["1", "2"], ["1"]]), "'T' has a row of 1 cells under 2 headings"),
        (lambda: replace(LINE, low=[0.1]), "line 'tdpo' has 3 x, 3 mean, 1 low, 3 high"),
        (lambda: replace(SCATTER, groups=[]), "'Does it predict\\?' has 4 x, 4 y, 0 groups"),
    ],
)
def test_ragged_data_is_named(build, words):
    with pytest.raises(UserError, match=words):
        build()


def test_names_become_safe():
    assert [safe_name(name) for name in ("a b/../c.png", "..", "", "é", "A_b-9")] == [
        "a-b-c-png",
        *["plot"] * 3,
        "A_b-9",
    ]
    assert len(safe_name("x" * 500)) == 80


def test_long_texts_keep_both_ends():
    assert [shorten("abcdefghij", width) for width in (10, 9, 4, 1)] == ["abcdefghij", "abcd…ghij", "ab…j", "…"]


def test_lines_and_intervals_are_drawn():
    plain = drawn(draw_curves, replace(CURVES, lines=[replace(LINE, low=LINE.mean, high=LINE.mean)]))
    shaded = drawn(draw_curves, CURVES)
    assert share(shaded, "#0072b2") > 0.003
    tint = "#d6e8f3"  # 16 % of the colour on white
    assert share(shaded, tint) > 0.05 > 0.001 > share(plain, tint)
    dark = drawn(draw_curves, CURVES, dark=True)
    assert share(dark, "#56b4e9") > 0.003 and share(dark, "#21211e") > 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_leaves_a_gap(bad):
    x, many = list(range(6)), [bad] * 6
    lines = [
        Line("all", x, many, many, many),
        Line("gap", x, [1, 2, bad, 2, bad, 1], [0, bad, bad, 1, 0, 0], [2, 3, bad, 3, bad, bad]),
        Line("place", [bad, *x[1:]], x, x, x),
        Line("empty", [], [], [], []),
    ]
    image = drawn(draw_curves, replace(CURVES, lines=lines))
    assert share(image, "#d55e00") > 0.001 and share(image, "#009e73") > 0.001
    assert share(image, "#0072b2", (0, 0, 1, 0.7)) == 0


def test_points_that_are_not_finite_and_plots_of_nothing_are_drawn():
    bad = [math.nan, math.inf, -math.inf, math.nan]
    assert drawn(draw_scatter, replace(SCATTER, x=[bad[0], bad[1], 2, 3], y=[1, 2, bad[2], 3])).size[0] == 1080
    drawn(draw_scatter, replace(SCATTER, x=bad))
    drawn(draw_scatter, replace(SCATTER, x=[], y=[], groups=[]))
    drawn(draw_curves, replace(CURVES, lines=[]))


def test_an_infinite_interval_is_not_drawn(figure):
    line = Line("one value", [1, 2], [0.2, 0.3], [-math.inf, -math.inf], [math.inf, math.inf])
    draw_curves(replace(CURVES, lines=[line]), io.BytesIO())
    low, high = figure[0].axes[0].get_ylim()
    assert 0.1 < low < 0.2 and 0.3 < high < 0.4


def test_a_lone_interval_is_a_bar(figure):
    draw_curves(replace(CURVES, lines=[Line("a", [1, 2, 3], [1, 1, 1], [0, math.nan, 0], [2, 2, 2])]), io.BytesIO())
    bars = [path for path in figure[0].axes[0].collections if hasattr(path, "get_segments")]
    assert np.array(bars[0].get_segments()).tolist() == [[[1, 0], [1, 2]], [[3, 0], [3, 2]]]


def test_scatter_shows_groups_and_the_line(figure):
    draw_scatter(SCATTER, io.BytesIO())
    *points, line = figure[0].axes[0].lines
    assert [group.get_xydata().tolist() for group in points] == [[[0, 1], [1, 3]], [[2, 2], [3, 4]]]
    assert points[0].get_color() != points[1].get_color() and points[0].get_marker() != points[1].get_marker()
    assert line.get_xydata()[[0, -1]] == pytest.approx(np.array([[0, 1.3], [3, 1.3 + 0.8 * 3]]))
    (band,) = figure[0].axes[0].collections
    half = 4.302653 * math.sqrt(0.9 * (1 / 4 + 1.5**2 / 5))
    assert band.get_datalim(figure[0].axes[0].transData).extents == pytest.approx([0, 1.3 - half, 3, 3.7 + half], 1e-4)
    axes = figure[0].axes[0]
    assert axes.get_title(loc="left") == "Does it predict?" and axes.texts[0].get_text() == "r\u00a0=\u00a00.8"


@pytest.mark.parametrize("number", [11, 50])
def test_many_groups_stay_apart_and_inside_the_picture(figure, number):
    labels = [f"model-{i} with a rather long name that goes on" for i in range(number)]
    draw_scatter(replace(SCATTER, x=range(number), y=range(number), groups=labels), io.BytesIO())
    draw_curves(replace(CURVES, lines=[replace(LINE, label=label) for label in labels]), io.BytesIO())
    for drawing in figure:
        lines = drawing.axes[0].lines
        looks = [(line.get_color(), line.get_marker()) for line in lines[: min(number, 77)]]
        assert len(set(looks)) == len(looks)
        shown = [text.get_text() for text in drawing.legends[0].get_texts()]
        rest = [f"… and {number - 47} more"] if number > 48 else []
        assert shown == labels[: 47 if rest else number] + rest
        inside(drawing)


def inside(figure) -> None:
    """Nothing is cut off, and nothing takes the place of the plot."""
    renderer = figure.canvas.get_renderer()
    axes = figure.axes[0]
    for artist in (figure.legends or [None])[0], axes.yaxis.label, axes.xaxis.label, axes._left_title, *axes.texts:
        if artist is not None and (artist in figure.legends or artist.get_text()):
            box = artist.get_window_extent(renderer)
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    assert axes.get_window_extent(renderer).height > 450 and axes.get_window_extent(renderer).width > 700


@pytest.mark.parametrize("text", ["word " * 60, "x" * 300, "$a_$ \\$ $", "_private", ""])
def test_long_and_odd_labels_stay_inside_and_as_they_are(figure, text):
    draw_curves(Curves("n", text, text, text, [replace(LINE, label=text)]), io.BytesIO())
    draw_scatter(Scatter("n", text, text, text, SCATTER.x, SCATTER.y, [text] * 4, text), io.BytesIO())
    for drawing in figure:
        inside(drawing)
        axes = drawing.axes[0]
        texts = [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        texts += [label.get_text() for legend in drawing.legends for label in legend.get_texts()]
        assert len(texts) == 3 + bool(text)
        for shown in texts:
            assert shown == text if len(text) < 20 else "…" in shown
        assert not axes.xaxis.label.get_parse_math() and not axes._left_title.get_parse_math()


def test_steps_have_no_fractions(figure):
    draw_curves(replace(CURVES, lines=[replace(LINE, x=[1, 2, 3])]), io.BytesIO())
    assert all(float(tick).is_integer() for tick in figure[0].axes[0].get_xticks())


def test_drawing_leaves_matplotlib_alone(monkeypatch):
    before = dict(matplotlib.rcParams)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    first, second = drawn(draw_curves, CURVES), drawn(draw_curves, CURVES)
    drawn(draw_scatter, SCATTER)
    assert first == second and dict(matplotlib.rcParams) == before
