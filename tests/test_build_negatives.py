"""`build_negatives.py` as a user runs it: sources, editors, card, preview, resuming, joining, wrong input."""

import _thread
import io
import json
import runpy
import sys
import tarfile
from pathlib import Path

import datasets
import pytest
import yaml
from chat_server import MODEL, ChatServer, completion, good, refused
from conftest import as_flags
from PIL import Image

from diffusers_tpo.errors import UserError
from diffusers_tpo.image_files import LocalFiles
from diffusers_tpo.negatives.dataset import stored_images, write_rows
from diffusers_tpo.principles import PRINCIPLES


SCRIPT = Path(__file__).parents[1] / "examples" / "text_preference" / "build_negatives.py"
CAPTIONS = Path(__file__).parent / "data" / "captions.txt"
COLOURED = ["a red cube on the left", "a blue cat in the morning", "two red cats on the right in winter", ""]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the script in this process and returns the data set it wrote, or its exit code."""

    def run(output="out", **flags):
        folder = tmp_path / output
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *as_flags({"output_dir": folder} | flags)])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stopped:
            return stopped.code
        return datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))

    return run


@pytest.fixture
def texts(tmp_path) -> str:
    path = tmp_path / "captions.csv"
    datasets.Dataset.from_dict({"text": COLOURED, "id": ["p", "q", "r", "s"]}).to_csv(path)
    return str(path)


def card_of(folder: Path) -> tuple[dict, str]:
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_rules_build_a_set_with_card_audit_and_preview(run, tmp_path, capsys):
    rows = run(captions_file=CAPTIONS, editor="rules", num_negatives=2, max_samples=120, preview=2)
    folder = tmp_path / "out"
    assert rows.column_names == ["key", "prompt", "negative_prompts", "principles", "num_edits", "editor"]
    assert len(rows) > 60 and set(rows["editor"]) == {"rules"}
    lines = CAPTIONS.read_text(encoding="utf-8").splitlines()
    for row in rows:
        assert row["prompt"] == lines[int(row["key"])]
        assert len(row["negative_prompts"]) == len(row["principles"]) == len(row["num_edits"]) in (1, 2)
        assert row["prompt"] not in row["negative_prompts"] and set(row["principles"]) <= set(PRINCIPLES)
    failed = [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]
    assert sorted([*map(int, rows["key"]), *(row["row"] for row in failed)]) == list(range(120))
    figures = json.loads((folder / "audit.json").read_text())
    assert figures["captions"] == len(rows) and figures["generation"]["failed"] == len(failed)
    front, text = card_of(folder)
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    assert front["dataset_info"]["splits"][0]["num_examples"] == len(rows)
    assert "Blind test" in text and "out of" not in front and str(tmp_path) not in text
    assert "<mark" in (folder / "preview.html").read_text()
    shown = capsys.readouterr().out
    assert f"{len(rows)} captions with" in shown and f"train on the set with --dataset_name {folder}" in shown
    assert len(shown[shown.index("preview.html shows") :].splitlines()) <= 10 and "|" not in shown


def test_running_again_builds_nothing_twice(run, tmp_path):
    flags = {"captions_file": CAPTIONS, "editor": "rules", "max_samples": 30, "preview": 0}
    first = run(**flags)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "data").iterdir()}
    assert run(**flags).to_list() == first.to_list()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "data").iterdir()} == written


def test_a_chat_endpoint_with_cost_and_key(run, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with ChatServer(good) as server:
        endpoint = {"base_url": server.url, "model": MODEL, "api_key_env": "MY_KEY"}
        rows = run(captions_file=texts, key_column="id", price_per_million_tokens=[1.0, 2.0], **endpoint)
        assert all(asked.headers["authorization"] == "Bearer sk-very-secret" for asked in server.asked)
    assert rows["key"] == ["p", "q", "r"] and set(rows["editor"]) == {MODEL}
    generation = json.loads((tmp_path / "out" / "audit.json").read_text())["generation"]
    tokens = generation["prompt_tokens"] + 2 * generation["completion_tokens"]
    assert generation["cost"] == pytest.approx(tokens / 1e6) and generation["cost"] > 0
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"sk-very-secret" not in path.read_bytes()
    failed = json.loads((tmp_path / "out" / "failed.jsonl").read_text())
    assert failed["key"] == "s" and failed["reason"] == "the caption is empty"


def test_what_got_no_answer_is_said_with_its_cause_and_asked_again(run, texts, tmp_path, capsys):
    with ChatServer(lambda asked: refused(422, "out of memory")) as server:
        flags = {"captions_file": texts, "base_url": server.url, "model": MODEL}
        assert run(**flags) == 2
        assert "3 of 4 because UnprocessableEntityError: Error code: 422" in capsys.readouterr().err
        server.behaviour = lambda asked: refused(422, "out of memory") if "winter" in asked.caption else good(asked)
        assert len(run(**flags)) == 2
        assert "1 captions got no answer, 1 because Unproc" in capsys.readouterr().out
        server.behaviour = good
        assert len(run(**flags)) == 3
        assert "no answer" not in capsys.readouterr().out


def test_a_dead_endpoint_is_named_with_its_cause(run, tmp_path, capsys):
    (tmp_path / "many.txt").write_text("".join(f"a red cube {number} on the left\n" for number in range(12)))
    flags = {"captions_file": tmp_path / "many.txt", "base_url": "http://127.0.0.1:1/v1", "model": MODEL}
    assert run(**flags, max_retries=0) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no connection to http://127.0.0.1:1/v1" in error and "ConnectionRefused" in error


def edits_and_judges(asked):
    """Edits well, and refuses as a judge what was edited into rabbits."""
    if asked.image is not None:
        return completion(json.dumps({"fits": ["red" in question for question in asked.questions]}))
    if "first" not in asked.task:
        return good(asked)
    verdict = {"difference": "?", "one_image_fits_both": "rabbit" in asked.task["second"], "changes": 1}
    return completion(json.dumps(verdict | {"principles": list(PRINCIPLES), "grammatical": True}))


def test_rules_then_a_model_for_what_is_left_then_a_judge_and_all_of_it_is_on_the_card(run, tmp_path, capsys):
    captions = ["a red cube on the left", "blorb grunk", "two red cats in winter"]
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    flags = {"captions_file": tmp_path / "captions.txt", "editor": "rules", "preview": 0}
    assert len(run(**flags)) == 2
    generation = json.loads((tmp_path / "out" / "audit.json").read_text())["generation"]
    assert not {"requests", "prompt_tokens", "cost", "judged"} & set(generation)
    assert "0 requests" not in (tmp_path / "out" / "README.md").read_text()
    with ChatServer(edits_and_judges) as server:
        flags |= {"then": "chat", "then_model": "big-model", "base_url": server.url}
        rows = run(**flags)
        assert {row["prompt"]: row["editor"] for row in rows} == dict(
            zip(captions, ("rules", "big-model", "rules"), strict=True)
        )
        assert len(server.asked) == 1
        flags |= {"verify": "text", "verify_model": "judge-model", "verify_price_per_million_tokens": [1, 2]}
        rows = run(**flags)
    assert set(rows["verifier"]) == {"judge-model"} and all(row["verdicts"] == [""] for row in rows)
    figures = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert set(figures["editors"]) == {"rules", "big-model"} and figures["generation"]["judge_cost"] > 0
    _, text = card_of(tmp_path / "out")
    assert "`rules` or `big-model`" in text and "judged by `judge-model`" in text and "`verdicts`" in text
    assert "judged: 3 opinions" in capsys.readouterr().out
    assert run(**flags | {"verify_model": "other"}) == 2
    assert "verify was" in capsys.readouterr().err


def test_a_judge_looks_at_the_images_of_the_set(run, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "pq":
        Image.new("RGB", (8, 8), "red").save(folder / f"{name}.png")
    (folder / "p.txt").write_text("a red cat")
    (folder / "q.txt").write_text("a green dog")
    with ChatServer(edits_and_judges) as server:
        judge = {"verify": ["image"], "verify_model": "vlm", "verify_base_url": server.url}
        rows = run(dataset_name=folder, editor="rules", principles="attribute", preview=0, **judge)
    assert rows["prompt"] == ["a red cat"] and rows["verdicts"] == [[""]]
    (failed,) = map(json.loads, (tmp_path / "out" / "failed.jsonl").read_text().splitlines())
    assert failed["prompt"] == "a green dog" and "does not fit" in failed["reason"]


def test_a_served_local_model_leaves_no_path_in_the_set(run, texts, tmp_path):
    with ChatServer(good) as server:
        rows = run(captions_file=texts, base_url=server.url, model="/home/me/models/tiny")
    assert set(rows["editor"]) == {"tiny"}
    assert "/home/me" not in (tmp_path / "out" / "README.md").read_text()


def test_an_interrupt_keeps_the_answers_and_the_command_goes_on(run, tmp_path, capsys):
    (tmp_path / "many.txt").write_text("".join(f"a red cube {number} on the left\n" for number in range(30)))
    interrupts = [12]

    def behaviour(asked):
        if asked.number in interrupts:
            interrupts.remove(asked.number)
            _thread.interrupt_main()  # as Ctrl-C does
        return good(asked)

    with ChatServer(behaviour) as server:
        flags = {"captions_file": tmp_path / "many.txt", "base_url": server.url, "model": MODEL, "concurrency": 2}
        assert run(**flags) == 130
        assert "run the same command to go on" in capsys.readouterr().err
        asked = len(server.asked)
        assert asked < 30
        assert len(run(**flags)) == 30
        assert len(server.asked) <= 30 + 2  # what was under way may be asked again


def test_images_stay_as_they_are_and_join_later_by_key(run, texts, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    lines = []
    for number, name in enumerate("pqrt"):
        Image.new("RGB", (8, 8), (number * 60, 0, 0)).save(folder / f"{name}.png")
        lines.append(json.dumps({"file_name": f"{name}.png", "text": COLOURED[number], "id": name}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    rows = run("direct", dataset_name=folder, editor="rules", key_column="id")
    stored = rows.cast_column("image", datasets.Image(decode=False))
    for row in stored:
        assert row["image"]["bytes"] == (folder / f"{row['key']}.png").read_bytes()
        assert row["image"]["path"] == f"{row['key']}.png"

    run("texts", captions_file=texts, editor="rules", key_column="id")
    joined = run("joined", dataset_name=tmp_path / "texts", join_images=folder, key_column="id")
    assert joined["key"] == ["p", "q", "r"]
    assert joined.cast_column("image", datasets.Image(decode=False)).to_list() == stored.to_list()
    assert run("joined", dataset_name=tmp_path / "texts", join_images=folder, key_column="id") == 2


def test_sets_merge_with_one_command_and_equal_rows_are_joined(run, texts, tmp_path, capsys):
    rules = run("rules", captions_file=texts, editor="rules", principles="attribute", key_column="id", preview=0)
    with ChatServer(good) as server:
        chat = {"base_url": server.url, "model": MODEL, "principles": "spatial", "preview": 0}
        model = run("model", captions_file=texts, max_samples=2, **chat)
    merged = run("merged", dataset_name=tmp_path / "rules", merge=[tmp_path / "model"], preview=0)
    assert "1 more" not in capsys.readouterr().out and len(rules) == 3 and len(model) == 2
    expected = {row["prompt"]: row["negative_prompts"] for row in rules}
    for row in model:
        expected[row["prompt"]] = expected[row["prompt"]] + row["negative_prompts"]
    assert {row["prompt"]: row["negative_prompts"] for row in merged} == expected
    assert merged["editor"] == [f"rules + {MODEL}"] * 2 + ["rules"] and merged["key"] == ["p", "q", "r"]
    assert all(len(row["principles"]) == len(row["num_edits"]) == len(row["negative_prompts"]) for row in merged)
    _, text = card_of(tmp_path / "merged")
    assert "merged with" in text and f"`rules` or `{MODEL}`" in text and str(tmp_path) not in text
    again = run("again", dataset_name=tmp_path / "merged", merge=[tmp_path / "model"], preview=0)
    assert [row["negative_prompts"] for row in again] == [row["negative_prompts"] for row in merged]
    assert run("bad", dataset_name=tmp_path / "rules", merge=[CAPTIONS.parent], preview=0) == 2
    assert "--merge" in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_take_and_leaves_nothing(run, tmp_path, capsys):
    lines = ["a red cube on the left"] * 4 + ["a blue cat in the morning"] * 2 + ["two red cats on the right"]
    (tmp_path / "captions.txt").write_text("\n".join(lines))
    with ChatServer(good) as server:
        flags = {"captions_file": tmp_path / "captions.txt", "base_url": server.url, "model": MODEL, "dry_run": 2}
        with pytest.raises(FileNotFoundError):
            run(**flags, near_duplicates="remove", price_per_million_tokens=[1, 1])
    shown = capsys.readouterr().out
    assert "4 of 7 captions nearly repeat" in shown and "left out" in shown
    assert "2 of 2 captions got" in shown and "all 3 captions" in shown and "3 requests, 54 tokens, $0.00" in shown
    assert not (tmp_path / "out").exists()


def test_near_duplicates_are_left_out_and_the_rest_keep_their_numbers(run, tmp_path):
    (tmp_path / "captions.txt").write_text(
        "a red cube on the left\nA red cube on the left.\na blue cat in the morning"
    )
    flags = {"captions_file": tmp_path / "captions.txt", "editor": "rules", "preview": 0}
    assert run(**flags, near_duplicates="remove")["key"] == ["0", "2"]
    assert run(**flags, near_duplicates="remove")["key"] == ["0", "2"]
    assert run("all", **flags, near_duplicates="count")["key"] == ["0", "1", "2"]


def test_a_webdataset_has_columns_by_the_endings_of_its_files(run, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    with tarfile.open(folder / "shard-00000.tar", "w") as archive:
        for number, caption in enumerate(COLOURED[:2]):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 0, 0)).save(picture, "PNG")
            for ending, content in (("png", picture.getvalue()), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{number:05d}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    columns = {"image_column": "png", "caption_column": "txt", "key_column": "__key__"}
    rows = run(dataset_name=folder, editor="rules", preview=0, **columns)
    assert rows["key"] == ["00000", "00001"] and rows["prompt"] == COLOURED[:2]
    assert [image.getpixel((0, 0))[0] for image in rows["image"]] == [0, 1]


def test_a_missing_image_is_one_sentence(tmp_path):
    gone = datasets.Dataset.from_dict({"image": [str(tmp_path / "gone.png")]}).cast_column("image", datasets.Image())
    texts = {"key": ["0"], "prompt": ["a"], "negative_prompts": [["b"]], "principles": [["content"]]}
    texts |= {"num_edits": [[1]], "editor": ["me"]}
    with pytest.raises(UserError, match="an image of the data set is missing or none .row 0: .*no file"):
        write_rows(tmp_path / "data" / "train.parquet", texts, stored_images(gone, "image"), LocalFiles())
    assert not (tmp_path / "data" / "train.parquet").exists()


def test_the_shapes_world_is_edited_exactly(run):
    from diffusers_tpo.shapes.captions import read_scene

    rows = run(shapes_rows=40, editor="shapes", num_negatives=3)
    assert len(rows) == 40 and isinstance(rows.features["image"], datasets.Image)
    for row in rows:
        scene = read_scene(row["prompt"])
        edited = [read_scene(text) for text in row["negative_prompts"]]
        assert None not in edited and scene not in edited and len(set(edited)) == len(edited)


def test_principles_weights_and_edits_are_what_was_asked_for(run):
    common = {"shapes_rows": 60, "editor": "shapes", "preview": 0}
    weighted = {"principles": ["content", "spatial"], "principle_sampling": "weighted", "principle_weights": [0, 1]}
    rows = run("spatial", **common, **weighted)
    assert {name for names in rows["principles"] for name in names} == {"spatial"}
    rows = run("three", **common, num_edits=3)
    assert max(number for numbers in rows["num_edits"] for number in numbers) >= 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "exactly one of --dataset_name"),
        ({"captions_file": "x.txt", "dataset_name": "y"}, "exactly one of"),
        ({"captions_file": "x.txt", "editor": "rules"}, "captions_file 'x.txt'"),
        ({"dataset_name": "nobody/nothing", "editor": "rules"}, "dataset_name 'nobody/nothing'"),
        ({"shapes_rows": 2}, "editor chat needs --model"),
        ({"shapes_rows": 2, "editor": "rules", "principles": ["colour"]}, "--principles must be one of"),
        ({"shapes_rows": 2, "editor": "rules", "principle_weights": [1.0]}, "principle_sampling weighted"),
        ({"shapes_rows": 2, "editor": "rules", "principle_sampling": "weighted"}, "principle_weights needs"),
        (
            {"shapes_rows": 2, "editor": "rules", "num_negatives": 0},
            "--num_negatives must be at least 1 and at most 100, got 0",
        ),
        ({"shapes_rows": 2, "model": "m", "extra_body": "{"}, "extra_body must be JSON"),
        ({"shapes_rows": 2, "model": "m", "extra_body": "[1]"}, "extra_body must be JSON of an object, got '[1]'"),
        (
            {"shapes_rows": 2, "editor": "shapes", "preview": -1},
            "--preview must be at least 0 and at most 1000, got -1",
        ),
        ({"shapes_rows": 2, "model": "m", "api_key_env": "NO_SUCH_NAME"}, "api_key_env 'NO_SUCH_NAME'"),
        ({"shapes_rows": 2, "model": "m"}, "needs your token"),
        ({"shapes_rows": 2, "model": "m", "base_url": "localhost:8000/v1"}, "base_url must look like"),
        ({"shapes_rows": 2, "model": "m", "base_url": "http://localhost:80x0/v1"}, "base_url must look like"),
        ({"shapes_rows": 2, "editor": "shapes", "push_to_hub": True}, "needs a valid token"),
        ({"shapes_rows": 2, "editor": "rules", "then": "chat"}, "--then chat needs --then_model"),
        ({"shapes_rows": 2, "editor": "rules", "then": "rules"}, "needs another editor than --editor"),
        ({"shapes_rows": 2, "editor": "rules", "then_model": "m"}, "--then_model needs --then"),
        ({"shapes_rows": 2, "editor": "rules", "verify": "text"}, "--verify text needs --verify_model"),
        ({"shapes_rows": 2, "editor": "rules", "verify_model": "m"}, "--verify_model needs --verify text"),
        (
            {"captions_file": str(CAPTIONS), "editor": "rules", "verify": "image", "verify_model": "m"},
            "--verify image needs a data set with images",
        ),
        (
            {"shapes_rows": 2, "editor": "shapes", "verify": "text", "verify_model": "m", "verify_extra_body": "[]"},
            "--verify_extra_body must be JSON of an object",
        ),
        (
            {
                "shapes_rows": 2,
                "editor": "shapes",
                "verify": "text",
                "verify_model": "m",
                "verify_api_key_env": "NO_KEY",
            },
            "--verify_api_key_env 'NO_KEY' is no environment variable",
        ),
        (
            {"shapes_rows": 2, "editor": "shapes", "verify_price_per_million_tokens": [1]},
            "--verify_price_per_million_tokens needs two numbers",
        ),
        ({"captions_file": str(CAPTIONS), "editor": "rules", "caption_column": "prose"}, "caption_column 'prose'"),
        ({"captions_file": str(CAPTIONS), "editor": "rules", "key_column": "id"}, "key_column 'id'"),
    ],
)
def test_wrong_input_is_one_sentence(run, capsys, monkeypatch, flags, words):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert run(**flags) == 2
    error = capsys.readouterr().err
    assert words in error.splitlines()[-1] and "Traceback" not in error


def test_another_configuration_is_refused_and_nothing_is_touched(run, tmp_path, capsys):
    run(shapes_rows=10, editor="shapes", preview=0)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert run(shapes_rows=10, editor="shapes", preview=0, num_negatives=2) == 2
    assert "num_negatives was 1 and is 2" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_strict_does_not_push_what_the_audit_warns_of(run, capsys):
    code = run(captions_file=CAPTIONS, editor="rules", max_samples=60, strict=True, preview=0)
    assert "not pushed: --strict" in code
