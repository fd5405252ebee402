"""The documents hold together: links lead somewhere, tables and figures are current, what is printed as code runs."""

import configparser
import importlib
import json
import re
import runpy
from pathlib import Path

import pytest
import tiny
import tiny_families
import torch
import yaml

import diffusers_tpo
from diffusers_tpo import add_noise, training_scheduler
from diffusers_tpo.models.adapters import add_lora
from diffusers_tpo.noising import Draw
from diffusers_tpo.tables import read_tables


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "dataset_cards").glob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / ".github").rglob("*.md"),
    ]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def setup_cfg() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


def addresses() -> dict[str, str]:
    return dict(line.split(" = ") for line in setup_cfg()["metadata"]["project_urls"].splitlines() if line)


def anchors(page: Path) -> set[str]:
    """What a link to a heading may say, as GitHub and doc-builder make it."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = [line.lstrip("#").strip() for line in text.splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:tests|docs|examples|src|benchmarks|\.ci|\.github)/[\w./-]+)`", page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_page_stands_in_the_table_of_contents_once():
    sections = yaml.safe_load((DOCS / "_toctree.yml").read_text())
    listed = [page["local"] for section in sections for page in section["sections"]]
    assert sorted(listed) == sorted(page.stem for page in DOCS.glob("*.md"))
    for section in sections:
        for page in section["sections"]:
            assert (DOCS / f"{page['local']}.md").read_text().startswith("# ")


def test_every_page_can_be_reached_from_the_first():
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = {link.partition("#")[0] for link in LINK.findall(page.read_text())}
        waiting += [DOCS / link for link in links if re.fullmatch(r"\w+\.md", link)]
    assert reached == set(DOCS.glob("*.md"))


def test_the_readme_is_short_and_shows_a_picture():
    text = (ROOT / "README.md").read_text()
    assert 550 <= len(text.split()) <= 800
    assert "](docs/quickstart.png)" in text and "make quickstart" in text and "make test" in text


def test_the_flag_tables_are_current():
    page = "\n".join(runpy.run_path(str(DOCS / "flags.py"))["sections"]())
    assert (DOCS / "flags.md").read_text() == page, "run python docs/flags.py"


def test_the_tables_are_those_of_the_kept_figures():
    program = runpy.run_path(str(DOCS / "tables.py"))
    with_tables = [page for page in program["PAGES"] if "<!-- table: " in page.read_text()]
    assert len(with_tables) >= 5
    for page in with_tables:
        assert page.read_text() == program["filled"](page.read_text()), "run python docs/tables.py"


@pytest.mark.parametrize("path", sorted((DOCS / "results").glob("*.json")), ids=lambda path: path.stem)
def test_kept_figures_say_where_they_come_from(path):
    content = json.loads(path.read_text())
    assert content["command"] and re.fullmatch(r"\d{4}-\d\d-\d\d", content["date"]) and content["machine"]
    for table in read_tables(path).values():
        assert all(len(row) == len(table.header) for row in table.rows)


def test_the_readme_s_figures_are_those_of_the_study():
    rows = {row[0]: row[1].mean for row in read_tables(DOCS / "results" / "shapes_main.json")["aligned"].rows}
    text = " ".join((ROOT / "README.md").read_text().split())
    expected = [rows[arm] for arm in ("TDPO, LoRA", "base", "SFT, same time, LoRA")]
    found = re.search(r"TDPO draws ([\d.]+) % .*? the base ([\d.]+) %, .*? time ([\d.]+) %", text)
    assert [float(figure) for figure in found.groups()] == [round(100 * mean, 1) for mean in expected]


def test_the_extras_are_those_of_setup_cfg():
    section = (DOCS / "index.md").read_text().split("## Extras")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(setup_cfg()["options.extras_require"])


def test_the_versions_are_those_of_setup_cfg():
    floors = dict(re.findall(r"(\w+)>=([\d.]+)", setup_cfg()["options"]["install_requires"]))
    section = (DOCS / "index.md").read_text().split("## Versions")[1]
    named = dict(re.findall(r"(torch|diffusers|transformers|accelerate|peft|datasets) (\d+\.\d+)", section))
    assert named == {name: floors[name] for name in named} and len(named) == 6


def test_the_rooms_of_the_architecture_are_those_of_the_package():
    section = (DOCS / "architecture.md").read_text().split("## Rooms")[1].split("\n## ")[0]
    named = {
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    package = Path(diffusers_tpo.__file__).parent
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert named == rooms - {"__init__", "__main__"}


@pytest.mark.parametrize(
    "name", re.findall(r"^\[\[autodoc\]\] (\S+)", (DOCS / "library.md").read_text(), re.MULTILINE)
)
def test_a_documented_name_exists_and_says_what_it_is(name):
    module, _, last = f"diffusers_tpo.{name}".rpartition(".")
    assert getattr(importlib.import_module(module), last).__doc__


def test_one_version_and_one_address_are_told():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == diffusers_tpo.__version__
    assert f"## [{diffusers_tpo.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    source = addresses()["Source"]
    assert {"Homepage", "Documentation", "Source", "Issues"} <= set(addresses())
    assert all(address.startswith(source) for address in addresses().values())
    for page in PAGES:
        assert source not in page.read_text(), "the address stands in setup.cfg alone"


def test_pre_commit_checks_with_the_version_that_make_lint_has():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ruff = next(hook for hook in hooks if "ruff" in hook["repo"])
    assert f"ruff=={ruff['rev'].removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_or_form_can_be_read(path):
    content = yaml.safe_load(path.read_text())
    for job in content.get("jobs", {}).values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            command = step.get("run", "").split()
            assert not command or "/" not in command[0] or (ROOT / command[0]).exists()


def test_publishing_compares_the_tag_with_the_version_that_the_package_has():
    text = (ROOT / ".github" / "workflows" / "publish.yml").read_text()
    pattern, file = re.search(r"sed -n 's/(.*?)/\\1/p' (\S+)\)", text).groups()
    found = re.search(pattern.replace(r"\(", "(").replace(r"\)", ")"), (ROOT / file).read_text(), re.MULTILINE)
    assert found.group(1) == diffusers_tpo.__version__


def test_links_of_built_pages_have_the_form_of_the_site():
    build = runpy.run_path(str(DOCS / "build.py"))
    source = build["repository"]()
    assert source == addresses()["Source"]
    text = "[a](training.md#models) ![p](quickstart.png) [c](../SECURITY.md) [d](https://x.org) [e](#here)"
    built = build["built_links"](text, source)
    assert (
        built
        == f"[a](training#models) ![p](quickstart.png) [c]({source}/blob/main/SECURITY.md) [d](https://x.org) [e](#here)"
    )


def snippets(page: Path) -> list[str]:
    return [
        block for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "TPOTrainer" in block
    ]


def loop_of(pipe, k: int) -> dict:
    """What a training loop has at hand: a denoiser with a LoRA, noisy latents, and what it is told."""
    torch.manual_seed(0)
    add_lora(pipe.unet, ("to_q", "to_k", "to_v", "to_out.0"), rank=2)
    images = 2
    side = pipe.unet.config.sample_size
    latents = torch.randn(images, 4, side, side, generator=torch.Generator().manual_seed(0))
    noised = add_noise(training_scheduler(pipe.scheduler), latents, [Draw(0, row) for row in range(images)])
    prompts = [f"{kind} {i}" for kind in ("a cat", "a dog", "no cat")[: 1 + k] for i in range(images)]
    with torch.no_grad():
        family = diffusers_tpo.families.family_of(pipe)
        cond = family.encode_prompts(pipe, prompts)
        box = torch.tensor([[8 * side, 8 * side, 0, 0, 8 * side, 8 * side]], dtype=torch.float32)
        cond |= family.encode_sizes(box.repeat(len(prompts), 1))
    loop = {"unet": pipe.unet, "noisy": noised.latents, "timesteps": noised.timesteps, "target": noised.target}
    return loop | {"cond": cond, "k": k, "is_matched": torch.arange(len(prompts)) < images, "pipe": pipe}


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_the_snippet_runs_as_printed(page, model):
    """At its first step policy and reference agree: the preference loss is log 2, and the LoRA gets a gradient."""
    pipe = tiny.make_pipe() if model == "sd" else tiny_families.make_pipe("sdxl")
    loop = loop_of(pipe, k=2)
    (snippet,) = snippets(ROOT / page)
    exec(compile(snippet, page, "exec"), loop)
    loop["loss"].backward()
    assert abs(loop["metrics"]["preference_loss"].item() - 0.693147) < 1e-4
    gradients = [p.grad for name, p in pipe.unet.named_parameters() if "lora_B" in name]
    assert all(gradient is not None for gradient in gradients) and any(gradient.any() for gradient in gradients)
