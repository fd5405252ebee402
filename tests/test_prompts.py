"""Prompts for evaluation: what every kind of source gives, and one sentence for everything that can be wrong with it."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.prompts import PROMPT_SETS, Prompt, PromptSet, held_out_prompts, load_prompts
from diffusers_tpo.shapes.world import make_scenes


ROWS = {"prompt": ["a cat", " two dogs ", "a cat"], "kind": ["animal", "animals", "repeated"], "number": [1, 2, 3]}
PROMPTS = [Prompt("a cat"), Prompt("two dogs")]
NAMED = [name for name, entry in PROMPT_SETS.items() if isinstance(entry, PromptSet)]


def error_of(source, **options) -> str:
    """The one sentence with which a source is refused."""
    with pytest.raises(UserError) as caught:
        load_prompts(str(source), **options)
    text = str(caught.value)
    assert "\n" not in text and ". " not in text and not text.endswith(".")
    assert f"prompts {str(source)!r}" in text
    return text


def write(path: Path, content) -> str:
    """Writes text or bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def write_rows(folder: Path, suffix: str) -> str:
    """`ROWS` as a file of one kind."""
    rows, path = datasets.Dataset.from_dict(ROWS), folder / f"rows{suffix}"
    if suffix == ".parquet":
        rows.to_parquet(path)
    elif suffix in (".csv", ".tsv"):
        rows.to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    elif suffix == ".jsonl":
        rows.to_json(path)
    else:
        path.write_text(json.dumps(rows.to_list()))
    return str(path)


def fill_cache(cache: Path, name: str, files: dict[str, str], revision: str | None = None) -> str:
    """Puts files where the Hub client keeps what it downloaded of a named set."""
    entry = PROMPT_SETS[name]
    folder = cache / f"datasets--{entry.repo.replace('/', '--')}" / "snapshots" / (revision or entry.revision)
    for file, content in files.items():
        write(folder / file, content)
    return str(cache)


def numbered(folder: Path, number: int) -> str:
    return write(folder / "numbered.txt", "\n".join(f"prompt {index}" for index in range(number)))


def test_a_text_file_has_one_prompt_a_line(tmp_path):
    text = "\ufeff a cat \r\n\r\ntwo dogs\r\n   \r\na cat\r\nein Käfer\u2028on a leaf"
    path = write(tmp_path / "prompts.TXT", text)
    assert load_prompts(path) == [*PROMPTS, Prompt("ein Käfer\u2028on a leaf")]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_a_file_of_rows_gives_its_columns(tmp_path, suffix):
    path = write_rows(tmp_path, suffix)
    assert load_prompts(path) == PROMPTS
    with_categories = [Prompt("a cat", "animal"), Prompt("two dogs", "animals")]
    assert load_prompts(path, category_column="kind") == with_categories
    assert load_prompts(path, prompt_column="kind", category_column="number") == [
        Prompt("animal", "1"), Prompt("animals", "2"), Prompt("repeated", "3")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "columns, text",
    [
        (["text", "caption", "prompt"], "prompt"),
        (["Prompt", "text", "caption"], "caption"),
        (["Prompt", "text"], "text"),
        (["other", "Prompt"], "Prompt"),
    ],
)
def test_the_usual_column_names_are_tried_in_their_order(tmp_path, columns, text):
    assert load_prompts(write(tmp_path / "a.jsonl", json.dumps({c: c for c in columns}))) == [Prompt(text)]


def test_words_that_tables_take_for_missing_values_are_prompts(tmp_path):
    path = write(tmp_path / "a.csv", '\ufeffprompt,kind\r\nNone,null\r\nnull,NA\r\n,x\r\n"a ""cat"", asleep",NaN\r\n')
    expected = [Prompt("None", "null"), Prompt("null", "NA"), Prompt('a "cat", asleep', "NaN")]
    assert load_prompts(path, category_column="kind") == expected


def test_a_json_file_may_be_a_list_of_strings_or_hold_json_lines(tmp_path):
    assert load_prompts(write(tmp_path / "list.json", '["a cat", " two dogs ", "a cat"]')) == PROMPTS
    assert load_prompts(write(tmp_path / "lines.json", '"a cat"\n\n"two dogs"\n')) == PROMPTS
    assert load_prompts(write(tmp_path / "one.json", '\ufeff{"prompt": "a cat"}')) == PROMPTS[:1]


def test_rows_without_text_are_left_out_and_counted(tmp_path, caplog):
    rows = [
        {"prompt": "a cat"},
        {"prompt": None},
        {"prompt": " "},
        {"prompt": 3},
        {"kind": "x"},
        {"prompt": "two dogs"},
    ]
    for name, values in {"rows.json": rows, "list.json": [row.get("prompt") for row in rows]}.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert load_prompts(write(tmp_path / name, json.dumps(values))) == PROMPTS
        assert "4 of 6 rows" in caplog.text and name in caplog.text


def test_nothing_is_warned_of_where_all_rows_are_used(tmp_path, caplog):
    assert load_prompts(write_rows(tmp_path, ".parquet")) == PROMPTS
    assert not caplog.records


def test_a_category_may_be_missing(tmp_path):
    path = write(tmp_path / "a.json", '[{"prompt": "a cat", "kind": null}, {"prompt": "two dogs"}]')
    assert load_prompts(path, category_column="kind") == PROMPTS


def test_a_file_name_is_no_pattern(tmp_path):
    write(tmp_path / "a1.csv", "prompt\nwrong\n")
    assert load_prompts(write(tmp_path / "a[1].csv", "prompt\na cat\n")) == PROMPTS[:1]


def test_a_saved_data_set_is_read_without_decoding_its_images(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "prompt": datasets.Value("string"), "kind": datasets.Value("string")}
    )
    images = [{"bytes": b"no image", "path": None}] * 3
    rows = {"image": images, "prompt": ROWS["prompt"], "kind": ROWS["kind"]}
    saved = datasets.Dataset.from_dict(rows, features=features)
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=saved.select([1]), test=saved).save_to_disk(tmp_path / "splits")
    assert load_prompts(str(tmp_path / "one")) == PROMPTS
    assert load_prompts(str(tmp_path / "splits")) == PROMPTS[1:]
    assert load_prompts(str(tmp_path / "splits"), split="test", category_column="kind")[0] == Prompt("a cat", "animal")
    assert "it has the splits train, test" in error_of(tmp_path / "splits", split="validation")


def test_a_folder_of_data_files_has_splits(tmp_path):
    write(tmp_path / "train.jsonl", '{"caption": "a cat"}')
    write(tmp_path / "test.jsonl", '{"caption": "two dogs"}')
    assert load_prompts(str(tmp_path)) == PROMPTS[:1]
    assert load_prompts(str(tmp_path), split="test") == PROMPTS[1:]
    assert "dev" in error_of(tmp_path, split="dev")


def test_a_sample_depends_on_the_seed_alone_and_keeps_the_order(tmp_path):
    path = numbered(tmp_path, 40)
    everything = load_prompts(path)
    sample = load_prompts(path, num_prompts=10)
    assert len(sample) == len(set(sample)) == 10
    assert sample == [prompt for prompt in everything if prompt in sample]
    assert sample == load_prompts(path, num_prompts=10, seed=0)
    assert sample != load_prompts(path, num_prompts=10, seed=1)
    assert sample != everything[:10]
    drawn = {prompt for seed in range(30) for prompt in load_prompts(path, num_prompts=10, seed=seed)}
    assert drawn == set(everything)


@pytest.mark.parametrize("number", [3, 4, None])
def test_more_than_there_are_takes_all(tmp_path, number):
    assert len(load_prompts(numbered(tmp_path, 3), num_prompts=number)) == 3


def test_a_sample_is_taken_of_different_prompts(tmp_path):
    path = write(tmp_path / "a.txt", "a cat\n" * 20 + "two dogs\n")
    assert load_prompts(path, num_prompts=2) == PROMPTS


PARTI = (
    "Prompt\tCategory\tChallenge\tNote\n"
    "bond\tAbstract\tBasic\tmany meanings\n"
    '"G I G G L E" in thick letters\tIllustrations\tWriting & Symbols\t\n'
    'a "stop sign\tOutdoor Scenes\tBasic\t\n'
)


def test_parti_keeps_quotation_marks_and_has_two_groupings(tmp_path):
    cache = fill_cache(tmp_path, "parti", {"PartiPrompts.tsv": PARTI})
    assert load_prompts("parti", cache_dir=cache) == [
        Prompt("bond", "Abstract"),
        Prompt('"G I G G L E" in thick letters', "Illustrations"),
        Prompt('a "stop sign', "Outdoor Scenes"),
    ]
    challenges = load_prompts("parti", cache_dir=cache, category_column="Challenge")
    assert [prompt.category for prompt in challenges] == ["Basic", "Writing & Symbols", "Basic"]
    assert "Prompt, Category, Challenge, Note" in error_of("parti", cache_dir=cache, category_column="Style")


def test_hpsv2_has_a_category_for_each_file_and_samples_all_of_them(tmp_path):
    styles = ("anime", "concept-art", "paintings", "photo")
    files = {
        f"benchmark/{style}.json": json.dumps(["a shared prompt", *(f"{style} {index}" for index in range(20))])
        for style in styles
    }
    cache = fill_cache(tmp_path, "hpsv2", files)
    prompts = load_prompts("hpsv2", cache_dir=cache)
    assert len(prompts) == 1 + 4 * 20
    assert prompts[0] == Prompt("a shared prompt", "anime")
    assert all(prompt.text.startswith(prompt.category) for prompt in prompts[1:])
    assert list(dict.fromkeys(prompt.category for prompt in prompts)) == list(styles)
    assert {prompt.category for prompt in load_prompts("hpsv2", cache_dir=cache, num_prompts=20)} == set(styles)


def test_pickapic_has_no_categories_and_can_be_read_at_another_revision(tmp_path):
    cache = fill_cache(tmp_path, "pickapic", {"test.jsonl": '{"id": 0, "prompt": "a cat"}\n'})
    fill_cache(tmp_path, "pickapic", {"test.jsonl": '{"id": 0, "prompt": "two dogs"}\n'}, revision="f" * 40)
    assert load_prompts("pickapic", cache_dir=cache) == PROMPTS[:1]
    assert load_prompts("pickapic", cache_dir=cache, revision="f" * 40) == PROMPTS[1:]


def test_open_image_preferences_reads_only_text(tmp_path, monkeypatch):
    """The pages of every image are overwritten, so that reading them would fail."""
    number = 50
    image = [{"bytes": bytes([index]) * 100, "path": None} for index in range(number)]
    table = pa.table(
        {
            "id": [str(index) for index in range(number)],
            "prompt": [f"prompt {index // 2}" for index in range(number)],
            "chosen": image,
            "rejected": image,
            "category": [f"style {index % 3}" for index in range(number)],
            "sub_category": ["detailed"] * number,
        }
    )
    features = datasets.Features.from_arrow_schema(table.schema)
    features |= {"chosen": datasets.Image(), "rejected": datasets.Image()}
    table = table.replace_schema_metadata(datasets.Features(features).arrow_schema.metadata)
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    parquet.write_table(table, path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    group = parquet.read_metadata(path).row_group(0)
    for chunk in (group.column(index) for index in range(group.num_columns)):
        if chunk.path_in_schema.endswith("bytes"):
            start = chunk.data_page_offset
            content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    with pytest.raises((OSError, ValueError)):
        parquet.read_table(path)

    name = "open_image_preferences"
    monkeypatch.setitem(PROMPT_SETS, name, replace(PROMPT_SETS[name], repo=str(tmp_path)))
    prompts = load_prompts(name)
    assert [prompt.text for prompt in prompts] == [f"prompt {index}" for index in range(number // 2)]
    assert [prompt.category for prompt in prompts[:3]] == ["style 0", "style 2", "style 1"]
    assert {prompt.category for prompt in load_prompts(name, category_column="sub_category")} == {"detailed"}
    assert "sub_category" in error_of(name, category_column="style")


@pytest.mark.parametrize("name", NAMED)
def test_a_named_set_without_a_network_is_one_sentence(tmp_path, name):
    text = error_of(name, cache_dir=str(tmp_path))
    assert PROMPT_SETS[name].repo in text and "connection" in text


def test_a_data_set_that_cannot_be_reached_is_one_sentence(tmp_path):
    text = error_of("nobody/nothing", cache_dir=str(tmp_path))
    assert "split 'train'" in text and all(name in text for name in PROMPT_SETS) and ".jsonl" in text


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("missing.txt", None, "must be an existing file that ends in .txt"),
        ("missing.csv", None, "must be an existing file that ends in .txt"),
        ("missing", None, "cannot be loaded"),
        ("picture.png", b"\x89PNG", "must be an existing file that ends in .txt"),
        ("latin.txt", "café".encode("latin-1"), "not encoded in UTF-8"),
        ("latin.csv", "prompt\ncafé\n".encode("latin-1"), "not encoded in UTF-8"),
        ("blank.txt", "\n \n", "holds no prompt"),
        ("empty.txt", "", "holds no prompt"),
        ("empty.csv", "", "it is empty"),
        ("empty.json", "[]", "holds no rows"),
        ("head.csv", "prompt,kind\n", "holds no rows"),
        ("wide.csv", "prompt\na cat\ntwo, dogs\n", "line 3"),
        ("cut.json", '[{"prompt": "a cat"}, ', "Expecting value"),
        ("cut.jsonl", '{"prompt": "a cat"}\n{"prompt"', "Expecting"),
        ("bad.parquet", "hello", "cannot be loaded"),
        ("numbers.json", '[{"prompt": 1}, {"prompt": 2}]', "holds no prompt in 2 rows"),
        ("lists.json", '[{"prompt": ["a cat"]}]', "holds no prompt"),
        ("other.json", '[{"a": "a cat", "b": "x"}]', "name its prompt_column, one of a, b"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        write(path, content)
    assert words in error_of(path)


def test_an_empty_folder_is_one_sentence(tmp_path):
    assert "cannot be loaded" in error_of(tmp_path)
    datasets.Dataset.from_dict({"prompt": []}).save_to_disk(tmp_path / "saved")
    error_of(tmp_path / "saved")


@pytest.mark.parametrize("flag", ["prompt_column", "category_column"])
@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_an_unknown_column_lists_the_columns(tmp_path, suffix, flag):
    text = error_of(write_rows(tmp_path, suffix), **{flag: "colour"})
    assert f"{flag} 'colour'" in text and "prompt, kind, number" in text


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("name", ["shapes", "parti"])
def test_a_sample_has_at_least_one_prompt(name, number):
    assert f"--num_prompts must be at least 1 to take some of --prompts {name!r}, got {number}" == error_of(
        name, num_prompts=number
    )


def test_options_that_mean_nothing_for_a_source_are_refused(tmp_path):
    text_file, table = numbered(tmp_path, 3), write_rows(tmp_path, ".csv")
    for source, names in {
        text_file: ("config", "split", "revision", "prompt_column", "category_column"),
        table: ("config", "split", "revision"),
        "parti": ("config", "split"),
        "open_image_preferences": ("config", "split"),
        "shapes": ("config", "split", "revision", "prompt_column", "category_column"),
    }.items():
        for name in names:
            assert f"takes no {name};" in error_of(source, **{name: "x"})


@pytest.mark.slow
def test_shapes_gives_held_out_captions_once_and_in_the_order_of_the_scenes():
    prompts = load_prompts("shapes")
    assert prompts == held_out_prompts(512, 0)
    assert len(prompts) == len({prompt.text for prompt in prompts}) == 512
    scenes = {scene.caption(): scene for scene in make_scenes(512, 0, held_out=True)}
    assert [prompt.text for prompt in prompts[: len(scenes)]] == list(scenes)
    for prompt in prompts[: len(scenes)]:
        assert prompt.category == {1: "one group", 2: "two groups"}[len(scenes[prompt.text].groups)]
    assert {prompt.category for prompt in prompts} == {"one group", "two groups"}
    assert not {prompt.text for prompt in prompts} & {scene.caption() for scene in make_scenes(1000, 0)}


def test_shapes_begins_alike_for_every_number_and_differs_by_seed():
    assert load_prompts("shapes", num_prompts=30) == load_prompts("shapes", num_prompts=100)[:30]
    assert load_prompts("shapes", num_prompts=30, seed=1) != load_prompts("shapes", num_prompts=30)


@pytest.mark.slow
def test_shapes_gives_what_there_is_where_more_is_asked_for(monkeypatch):
    monkeypatch.setattr("diffusers_tpo.shapes.world.MAX_SCENES", 600)
    captions = {scene.caption() for scene in make_scenes(600, 0, held_out=True)}
    for number in (400, 599, 5000):
        assert {prompt.text for prompt in held_out_prompts(number)} == captions


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "lone \\ud800"}\n{"prompt": "fine"}\n')
    assert load_prompts(str(tmp_path / "p.jsonl")) == [Prompt("fine")]
