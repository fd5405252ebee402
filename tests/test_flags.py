"""Flags from the command line, from a file and from Python: what is read, what is refused and in which words."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from diffusers_tpo import __version__
from diffusers_tpo.commands.parsing import nearest, parse_flags, take_flags, write_config
from diffusers_tpo.errors import UserError
from diffusers_tpo.flags import AtLeastOne, Kind, PositiveNumber, Range, Share, check_ranges, flag


@dataclass
class Model:
    """The model.

    What else stands here is for Python.
    """

    name: str = flag(help="Where it lies.")
    rank: AtLeastOne = flag(4, "Of the LoRA.")
    use_lora: bool = flag(False, "Or the whole.")
    precision: Literal["no", "fp16"] = flag("no", "Of the passes.")
    clip: float | None = flag(0.1, "Rise of 5 % at most.")
    hub_token: str | None = flag(None, "Secret.")


@dataclass
class Run:
    """How long; a resumed run may change these."""

    prompts: list[str] = flag(["a"], "Rendered.")
    scales: list[PositiveNumber] = flag([1.0, 2.5], "Of guidance.")
    shift: float = flag(0.0, "Any number.")
    warm: bool = flag(True, "Before it starts.")
    max_train_steps: AtLeastOne | None = flag(None, "Steps.")
    share: Share = flag(0.5, "Of it.")
    bound: Annotated[float, Range(above=0, may_be_infinite=True)] = flag(1.0, "May be inf.")


def parse(*words: str) -> tuple[Model, Run]:
    return parse_flags(Model, Run, argv=["--name", "it", *words])


def refused(*words: str) -> str:
    with pytest.raises(UserError) as error:
        parse(*words)
    return str(error.value)


@pytest.fixture
def file(tmp_path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_what_is_not_given_has_its_default():
    assert parse() == (Model("it"), Run())


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--rank", "8"], "rank", 8),
        (["--max-train-steps", "8"], "max_train_steps", 8),
        (["--max_train_steps=8"], "max_train_steps", 8),
        (["--use_lora"], "use_lora", True),
        (["--use_lora", "false"], "use_lora", False),
        (["--use_lora", "--no_use_lora"], "use_lora", False),
        (["--no-warm"], "warm", False),
        (["--warm", "No"], "warm", False),
        (["--shift", "-3"], "shift", -3.0),
        (["--shift", "-1e-4"], "shift", -1e-4),
        (["--shift", "-.5"], "shift", -0.5),
        (["--bound", "inf"], "bound", math.inf),
        (["--scales", "1", "3e0"], "scales", [1.0, 3.0]),
        (["--prompts", "a cat", "- a dog"], "prompts", ["a cat", "- a dog"]),
        (["--prompts=-cat"], "prompts", ["-cat"]),
        (["--prompts", "a=b", "", "été"], "prompts", ["a=b", "", "été"]),
        (["--rank", "8", "--rank", "16"], "rank", 16),
        (["--precision", "fp16"], "precision", "fp16"),
    ],
)
def test_words_of_a_command_line(words, name, value):
    model, run = parse(*words)
    assert (vars(model) | vars(run))[name] == value


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rank", "x"], "--rank must be a whole number, got 'x'"),
        (["--rank", "1.0"], "--rank must be a whole number, got '1.0'"),
        (["--rank="], "--rank must be a whole number, got ''"),
        (["--rank", "0"], "--rank must be at least 1, got 0"),
        (["--rank"], "--rank needs a value"),
        (["--rank", "--use_lora"], "--rank needs a value"),
        (["--rank", "4", "8"], "'8' belongs to no flag; flags look like --name value"),
        (["--use_lora", "perhaps"], "--use_lora must be true or false, got 'perhaps'"),
        (["--precision", "fp8"], "--precision must be one of no, fp16, got 'fp8'"),
        (["--prompts"], "--prompts needs a value"),
        (["--scales", "1", "x"], "--scales must be a number, got 'x'"),
        (["--scales", "1", "-1"], "--scales must be greater than 0, got -1.0"),
        (["--scales", "nan"], "--scales must be greater than 0, got nan"),
        (["--shift", "nan"], "--shift must be a finite number, got nan"),
        (["--shift", "-inf"], "--shift must be a finite number, got -inf"),
        (["--max_train_steps", "0"], "--max_train_steps must be at least 1, got 0"),
        (["--share", "1.5"], "--share must be at least 0 and at most 1, got 1.5"),
        (["--lora_rank", "8"], "there is no flag --lora_rank; did you mean --rank?"),
        (["--max_train_step=3"], "there is no flag --max_train_step; did you mean --max_train_steps?"),
        (["--max_train"], "there is no flag --max_train; did you mean --max_train_steps?"),
        (["--sca", "1"], "there is no flag --sca; did you mean --scales?"),
        (["--zebra"], "there is no flag --zebra; see --help"),
        (["-cat"], "there is no flag -cat; a value that begins with a dash follows an equals sign, as in --name=-cat"),
        (["--config"], "--config needs a value"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config is given 2 times; give one file"),
        (["--config", "nowhere.yaml"], "--config 'nowhere.yaml' cannot be read ([Errno 2] No such file or directory: 'nowhere.yaml')"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_sentence(words, sentence):
    assert refused(*words) == sentence


def test_a_flag_that_must_be_given():
    with pytest.raises(UserError, match="^--name must be given, here or in the file of --config$"):
        parse_flags(Model, Run, argv=["--rank", "3"])


def test_a_misspelled_flag_is_named_before_one_that_lacks():
    with pytest.raises(UserError, match="there is no flag --nane; did you mean --name"):
        parse_flags(Model, Run, argv=["--nane", "it"])


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("rank: 8", "rank", 8),
        ('rank: "8"', "rank", 8),
        ("max-train-steps: 8", "max_train_steps", 8),
        ("shift: 1e-4", "shift", 1e-4),
        ("shift: -1e-4", "shift", -1e-4),
        ("bound: .inf", "bound", math.inf),
        ("bound: inf", "bound", math.inf),
        ("precision: no", "precision", "no"),
        ("precision: fp16", "precision", "fp16"),
        ("hub_token: 2026-11-30", "hub_token", "2026-11-30"),
        ("hub_token: 010", "hub_token", "010"),
        ("hub_token: on", "hub_token", "on"),
        ("hub_token: -x", "hub_token", "-x"),
        ('hub_token: "null"', "hub_token", "null"),
        ("use_lora: yes", "use_lora", True),
        ("use_lora: True", "use_lora", True),
        ("warm: false", "warm", False),
        ("clip: null", "clip", None),
        ("clip: ~", "clip", None),
        ("clip:", "clip", None),
        ("prompts: [-cat, --name, a]", "prompts", ["-cat", "--name", "a"]),
        ("prompts:\n- 'a: b'\n- c", "prompts", ["a: b", "c"]),
        ("prompts: a cat", "prompts", ["a cat"]),
        ("prompts: []", "prompts", []),
        ("scales: [1, 1e1]", "scales", [1.0, 10.0]),
        ("\ufeffrank: 8", "rank", 8),
        ("", "rank", 4),
        ("# nothing", "rank", 4),
    ],
)
def test_lines_of_a_file(file, text, name, value):
    model, run = parse("--config", file(text))
    assert (vars(model) | vars(run))[name] == value


def test_the_command_line_wins_over_the_file(file):
    path = file("rank: 8\nuse_lora: true\nprompts: [a, b]\nname: other")
    model, run = parse_flags(Model, Run, argv=["--rank", "2", "--config", path, "--no_use_lora", "--prompts", "c"])
    assert (model.name, model.rank, model.use_lora, run.prompts) == ("other", 2, False, ["c"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rank: x", "--rank must be a whole number, got 'x', in --config FILE"),
        ("rank: true", "--rank must be a whole number, got 'true', in --config FILE"),
        ("rank: 1e3", "--rank must be a whole number, got '1e3', in --config FILE"),
        ("rank:", "--rank takes a value, got nothing, in --config FILE"),
        ("rank: [1, 2]", "--rank takes a value, got a list, in --config FILE"),
        ("prompts: [a, null]", "--prompts takes a value, got nothing, in --config FILE"),
        ("use_lora: off", "--use_lora must be true or false, got 'off', in --config FILE"),
        ("lora_rank: 8", "there is no flag lora_rank, in --config FILE; did you mean --rank?"),
        ("zebra: 8", "there is no flag zebra, in --config FILE; see --help"),
        ("config: a.yaml", "there is no flag config, in --config FILE; did you mean --config?"),
        ("model:\n  rank: 8", "--config FILE has flags below model; write all flags side by side"),
        ("prompts: [[a]]", "--config FILE has a list in the list of prompts; a flag takes values"),
        ("- rank", "--config FILE must hold a line such as 'rank: 16' for each flag"),
        ("rank", "--config FILE must hold a line such as 'rank: 16' for each flag"),
        ("null: 3", "--config FILE must hold a line such as 'rank: 16' for each flag"),
        ("rank: 8\nrank: 9", "--config FILE cannot be read (line 2: rank stands there twice)"),
        ("[a]: 3", "--config FILE cannot be read (line 1: a flag's name is a text)"),
        ("a: 1\nb: [", "--config FILE cannot be read (line 2: expected the node content, but found '<stream end>')"),
        ("rank: !!python/name:os.system", "--config FILE cannot be read (line 1: could not determine a constructor for "
         "the tag 'tag:yaml.org,2002:python/name:os.system')"),
        (b"rank: \xff", "--config FILE cannot be read (it is no UTF-8 text)"),
        ("[" * 5000, "--config FILE cannot be read (its lists are nested too deeply)"),
        ("#" * 1_000_001, "--config FILE is longer than 1,000,000 characters; give a file of flags"),
    ],
)  # fmt: skip
def test_wrong_files_are_one_sentence(file, text, sentence):
    path = file(text)
    assert refused("--config", path).replace(repr(path), "FILE") == sentence


def test_a_folder_is_no_file_of_flags(tmp_path):
    assert "cannot be read ([Errno 21] Is a directory" in refused("--config", str(tmp_path))


def test_aliases_that_grow_without_end_are_refused_at_once(file):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "has a list in the list of b" in refused("--config", file("\n".join(lines)))


def test_a_range_in_a_file_is_that_of_the_flag(file):
    assert refused("--config", file("rank: 0")) == "--rank must be at least 1, got 0"


def test_flags_from_python(file):
    model, run = take_flags(
        Model, Run, flags={"name": "it", "rank": 8, "use_lora": True, "scales": (1, 2), "clip": None}
    )
    assert (model, run.scales) == (Model("it", 8, True, clip=None), [1.0, 2.0])
    model, _ = take_flags(Model, Run, flags={"config": file("name: other\nrank: 3"), "rank": 5})
    assert (model.name, model.rank) == ("other", 5)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"rank": 4.5}, "--rank must be a whole number, got '4.5'"),
        ({"rank": True}, "--rank must be a whole number, got 'True'"),
        ({"rank": None}, "--rank takes a value, got nothing"),
        ({"rank": {}}, "--rank takes a value, got a dict"),
        ({"lora_rank": 4}, "there is no flag lora_rank; did you mean --rank?"),
        ({"use_lora": 2}, "--use_lora must be true or false, got '2'"),
    ],
)
def test_wrong_flags_from_python(flags, sentence):
    with pytest.raises(UserError) as error:
        take_flags(Model, Run, flags={"name": "it"} | flags)
    assert str(error.value) == sentence


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
GROUPS = st.tuples(
    st.builds(
        Model,
        name=TEXTS,
        rank=st.integers(1, 10**9),
        use_lora=st.booleans(),
        precision=st.sampled_from(["no", "fp16"]),
        clip=st.none() | NUMBERS,
        hub_token=st.none(),
    ),
    st.builds(
        Run,
        prompts=st.lists(
            TEXTS | st.sampled_from(["no", "null", "~", "-x", "--rank", "1e-4", "0x1", ".inf", "<<", "="])
        ),
        scales=st.lists(st.floats(1e-300, 1e300)),
        shift=NUMBERS,
        warm=st.booleans(),
        max_train_steps=st.none() | st.integers(1, 10**9),
        share=st.floats(0, 1),
        bound=st.floats(0, exclude_min=True, allow_nan=False),
    ),
)


@given(GROUPS)
@example((Model("it"), Run(prompts=["\x85", "\u2028", "\n"])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_a_written_config_repeats_the_flags(tmp_path, groups):
    path = tmp_path / "run.yaml"
    write_config(path, *groups)
    assert parse_flags(Model, Run, argv=["--config", str(path)]) == groups


def test_a_written_config_holds_what_differs_and_no_secret(tmp_path):
    write_config(tmp_path / "run.yaml", Model("it", rank=8, hub_token="hf_secret"), Run())
    assert (tmp_path / "run.yaml").read_text() == "name: it\nrank: 8\n"


def test_help_is_grouped_and_says_ranges_and_defaults(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_flags(Model, Run, description="Does it.\n\n    as written", argv=["--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "Does it.\n\n    as written" in told
    assert "\nThe model:\n" in told and "\nHow long; a resumed run may change these:\n" in told
    lines = " ".join(told.split())
    for words in (
        "--name TEXT Where it lies. (must be given)",
        "--rank INTEGER Of the LoRA. (at least 1, default 4)",
        "--use_lora [true,false] Or the whole.",
        "--precision {no,fp16} Of the passes. (default no)",
        "--clip NUMBER Rise of 5 % at most. (default 0.1)",
        "--shift NUMBER Any number. (default 0.0)",
        "--scales NUMBER [NUMBER ...] Of guidance. (greater than 0, default 1.0 2.5)",
    ):
        assert words in lines
    assert "--no_use_lora" not in told and "hub_token=" not in told


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_flags(Model, Run, argv=["--version"])
    assert (stopped.value.code, capsys.readouterr().out) == (0, f"diffusers_tpo {__version__}\n")


@pytest.mark.parametrize(
    ("name", "found"),
    [("lora-rank", ["rank"]), ("RANK", ["rank"]), ("max_", ["max_train_steps", "max_length"]), ("xyz", [])],
)
def test_nearest(name, found):
    assert nearest(name, ["rank", "max_train_steps", "max_length", "name"]) == found


@pytest.mark.parametrize("annotation", [dict, int | str, list[dict], tuple[int, int]])
def test_a_type_that_no_flag_can_have(annotation):
    with pytest.raises(TypeError, match="is no type of a flag"):
        Kind.of(annotation)


def test_ranges_of_objects_that_were_made_in_python():
    for field, value in (("rank", 0), ("clip", math.nan)):
        with pytest.raises(UserError, match=f"--{field} must be"):
            check_ranges(dataclasses.replace(Model("it"), **{field: value}))
