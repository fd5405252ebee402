"""Who may import whom, read from the source: rooms and what they may know, no circles, no hidden imports."""

import ast
import functools
import re
from pathlib import Path


PACKAGE = Path(__file__).parents[1] / "src" / "diffusers_tpo"
MODULES = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}
GROUND = {
    "errors",
    "files",
    "flags",
    "show",
    "tables",
    "privacy",
    "intervals",
    "principles",
    "quiet",
    "memory",
    "chat",
    "decoding",
    "version",
    "versions",
    "image_files",
}
MAY_KNOW = {
    "losses": set(),
    "noising": GROUND,
    "metrics": set(),
    "families": GROUND,
    "models": GROUND | {"families", "noising"},
    "trainer": GROUND | {"families", "losses", "metrics", "models", "noising"},
    "guidance": GROUND | {"families", "models"},
    "data": GROUND | {"noising"},
    "shapes": GROUND,
    "negatives": GROUND | {"shapes"},
    "publish": GROUND,
    "evaluation": GROUND | {"data", "families", "guidance", "losses", "models", "noising", "shapes"},
    "training": GROUND
    | {"data", "evaluation", "families", "guidance", "losses", "metrics", "models", "noising", "publish", "trainer"},
    "commands": GROUND | {"models"},
    "__init__": {"noising", "quiet", "trainer", "version"},
    "__main__": {"commands"},
} | dict.fromkeys(GROUND, GROUND)
HEAVY = {
    "openai",
    "bitsandbytes",
    "inflect",
    "lemminflect",
    "nltk",
    "rich",
    "sentence_transformers",
    "diffsynth",
    "matplotlib",
    "sklearn",
    "wandb",
    "trackio",
}


def imports(parts: tuple[str, ...], tree: ast.AST) -> set[str]:
    """Absolute names of everything a module imports, relative imports resolved."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ("diffusers_tpo", *parts[:-1])
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def own(names: set[str]) -> set[tuple[str, ...]]:
    """The files of this package that hold the imported names."""
    found = set()
    for name in names:
        parts = tuple(name.split("."))
        if parts[0] != "diffusers_tpo":
            continue
        for length in range(len(parts), 0, -1):
            here = parts[1:length]
            file = next((file for file in (here, (*here, "__init__")) if file in MODULES), None)
            if file is not None:
                found.add(file)
                break
    return found


@functools.cache
def parse(parts) -> ast.Module:
    return ast.parse(MODULES[parts].read_text())


def known(parts) -> set[tuple[str, ...]]:
    return own(imports(parts, parse(parts))) - {parts}


def room(parts: tuple[str, ...]) -> str:
    return "/".join(parts[:-1]) or parts[0]


def circle(arrows: dict) -> list:
    """Some circle among the arrows; empty if there is none."""
    done, path = set(), []

    def walk(node) -> list:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        path.append(node)
        for other in sorted(arrows.get(node, ())):
            if found := walk(other):
                return found
        done.add(path.pop())
        return []

    return next((found for node in sorted(arrows) if (found := walk(node))), [])


def test_the_reader_sees_relative_and_absolute_imports():
    tree = ast.parse(
        "from ..losses import x\nfrom . import suite\nimport diffusers_tpo.data.rows\ndef f():\n import openai"
    )
    names = imports(("evaluation", "deep"), tree)
    assert names == {
        "diffusers_tpo.losses.x",
        "diffusers_tpo.evaluation.suite",
        "diffusers_tpo.data.rows",
        "openai",
    }
    assert own(names) == {("losses",), ("evaluation", "suite"), ("data", "rows")}


def test_the_search_finds_a_circle():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_a_room_knows_only_those_below_it():
    others = {parts: {other[0] for other in known(parts)} - {parts[0]} for parts in MODULES}
    assert not {parts: above for parts in MODULES if (above := others[parts] - MAY_KNOW[parts[0]])}


def test_no_circle_between_files():
    arrows = {parts: known(parts) for parts in MODULES}
    assert not circle(arrows)


def test_no_circle_between_rooms():
    arrows = {}
    for parts in MODULES:
        arrows.setdefault(room(parts), set()).update({room(other) for other in known(parts)} - {room(parts)})
    assert not circle(arrows)


def hidden_imports(tree: ast.Module) -> list[str]:
    """Texts, but for docstrings, that name a module of this package."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)
    }
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    texts = [node.value for node in constants if isinstance(node.value, str)]
    return [text for text in texts if re.fullmatch(r"diffusers_tpo(\.\w+)+(:\w+)?", text)]


def test_no_import_hides_in_a_string():
    tree = ast.parse(
        '"""diffusers_tpo.data"""\nx = "diffusers_tpo.models.loading:load", "by diffusers_tpo.data", b"x", 1'
    )
    assert hidden_imports(tree) == ["diffusers_tpo.models.loading:load"]
    assert not {parts: found for parts in MODULES if (found := hidden_imports(parse(parts)))}


def test_a_module_neither_imports_examples_nor_parses_command_lines():
    for parts in MODULES:
        names = imports(parts, parse(parts)) if parts[0] != "commands" else set()
        roots = {name.split(".")[0] for name in names}
        assert not roots & {"examples", "argparse", "train_text_to_image_tpo"}, parts
        assert not {name for name in names if name.endswith("HfArgumentParser")}, parts


def test_heavy_optional_packages_are_imported_where_they_are_used():
    for parts in MODULES:
        top_level = ast.Module([n for n in parse(parts).body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
        assert not {name.split(".")[0] for name in imports(parts, top_level)} & HEAVY, parts


def test_losses_import_nothing_but_torch():
    assert {name.split(".")[0] for name in imports(("losses",), parse(("losses",)))} == {"torch"}


def test_every_module_says_what_it_is():
    assert not [parts for parts in MODULES if parse(parts).body and not ast.get_docstring(parse(parts))]
