"""Who may import whom, read from the source."""

import ast
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parents[1] / "src" / "diffusers_tpo"
MODULES = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}
ALLOWED = {
    "errors": {"show"},
    "alarms": {"adapters", "interrupts", "metrics"},
    "metrics": set(),
    "batches": {"errors"},
    "interrupts": set(),
    "losses": {"errors"},
    "noising": {"errors"},
    "families": {"errors"},
    "adapters": {"errors"},
    "files": {"errors"},
    "checkpoints": {"errors", "files"},
    "hub": {"errors"},
    "rows": {"errors", "show"},
    "data": {"buckets", "decoding", "errors", "images", "noising", "reader", "rows", "show", "streaming"},
    "streaming": {"errors", "reader", "rows"},
    "reader": {"buckets", "decoding", "errors", "images", "negatives", "noising", "rows"},
    "buckets": {"decoding", "errors"},
    "decoding": {"errors", "show"},
    "images": {"errors", "noising"},
    "validation": {"batches", "families"},
    "cards": {"show"},
    "origins": set(),
    "outputs": {"adapters", "curves", "families", "model_card", "models"},
    "reference": {"cache", "data", "errors"},
    "curves": set(),
    "model_card": {"cards", "origins"},
    "shapes": {"batches", "errors", "evaluation", "families", "models", "negatives", "noising", "rows"},
    "negatives": {"cards", "chat", "decoding", "errors", "evaluation", "files", "show"},
    "chat": {"errors"},
    "show": set(),
    "models": {"adapters", "checkpoints", "errors", "families", "text_encoders"},
    "cache": {"errors", "files"},
    "evaluation": {
        "batches",
        "cards",
        "chat",
        "decoding",
        "errors",
        "families",
        "files",
        "images",
        "losses",
        "model_card",
        "negatives",
        "noising",
        "rows",
        "show",
    },
    "text_encoders": {"adapters", "errors", "families"},
    "encoding": {"cache", "data", "families", "images", "noising", "text_encoders"},
    "arguments": {"errors", "evaluation", "negatives", "trainer"},
    "trainer": {"errors", "losses", "metrics", "noising", "families", "adapters"},
    "__init__": set(),
}
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


def own(names: set[str], parts: tuple[str, ...]) -> set[str]:
    """The top-level modules of this package among them, without the module itself."""
    tops = {name.split(".")[1] for name in names if name.startswith("diffusers_tpo.")}
    return {
        top for top in tops if top != parts[0] and (PACKAGE / top).exists() or (PACKAGE / f"{top}.py").exists()
    } - {parts[0]}


def parse(parts) -> ast.Module:
    return ast.parse(MODULES[parts].read_text())


def test_the_reader_sees_relative_and_absolute_imports():
    tree = ast.parse(
        "from ..losses import x\nfrom . import noising\nimport diffusers_tpo.data\ndef f():\n import openai"
    )
    assert imports(("evaluation", "deep"), tree) == {
        "diffusers_tpo.losses.x",
        "diffusers_tpo.evaluation.noising",
        "diffusers_tpo.data",
        "openai",
    }
    assert own(imports(("evaluation", "deep"), tree), ("evaluation", "deep")) == {"losses", "data"}
    assert own(imports(("trainer",), parse(("trainer",))), ("trainer",)) == {
        "losses",
        "metrics",
        "noising",
        "families",
        "adapters",
        "errors",
    }


@pytest.mark.parametrize("parts", MODULES, ids="/".join)
def test_a_module_imports_only_what_it_may(parts):
    assert own(imports(parts, parse(parts)), parts) <= ALLOWED[parts[0]]


@pytest.mark.parametrize("parts", MODULES, ids="/".join)
def test_a_module_neither_imports_examples_nor_parses_command_lines(parts):
    names = imports(parts, parse(parts))
    assert not {name for name in names if name.split(".")[0] in ("examples", "argparse", "train_text_to_image_tpo")}
    assert not {name for name in names if name.endswith("HfArgumentParser")}


@pytest.mark.parametrize("parts", MODULES, ids="/".join)
def test_heavy_optional_packages_are_imported_where_they_are_used(parts):
    top_level = ast.Module([n for n in parse(parts).body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
    assert not {name.split(".")[0] for name in imports(parts, top_level)} & HEAVY


def test_losses_import_nothing_but_torch():
    assert {name.split(".")[0] for name in imports(("losses",), parse(("losses",)))} == {"torch"}


@pytest.mark.parametrize("parts", MODULES, ids="/".join)
def test_every_module_says_what_it_is(parts):
    tree = parse(parts)
    assert not tree.body or ast.get_docstring(tree)
