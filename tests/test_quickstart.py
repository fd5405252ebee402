"""The quickstart as a user runs it, only shorter."""

import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from diffusers_tpo.commands import console


EXAMPLES = Path(__file__).parents[1] / "examples" / "text_preference"


@pytest.mark.slow
def test_quickstart_leaves_what_it_promises(tmp_path, monkeypatch, capsys):
    """In this process, but for the training, which it launches through accelerate."""
    tmp_path = tmp_path / "quickstart"
    short = ["--output_dir", str(tmp_path), "--max_train_steps", "3", "--num_prompts", "4"]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / "quickstart.py"), *short])
    runpy.run_path(sys.argv[0], run_name="__main__")
    said = capsys.readouterr().out
    assert (tmp_path / "pytorch_lora_weights.safetensors").stat().st_size > 10_000
    for picture in ("before_after.png", "curves.png"):
        assert min(Image.open(tmp_path / picture).size) > 200
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    aligned = metrics["metrics"]["1.5/aligned"]
    assert metrics["prompts"] == 4 and 0.25 <= aligned["before"] <= 1
    assert abs(aligned["after"] - aligned["before"] - aligned["difference"]["mean"]) < 1e-9
    card = (tmp_path / "README.md").read_text()
    assert "Not evaluated" not in card and "| 1.5/aligned" in card and str(tmp_path) not in card
    assert "license: apache-2.0" in card and (tmp_path / "assets" / "curves.png").is_file()
    assert "| 1.5/aligned" in said and "before_after.png" in said
    shares = [cell for line in said.splitlines() if line.startswith("| 1") for cell in line.split("|")[2:4]]
    bounds = [float(bound) for cell in shares for bound in cell.strip(" ]").replace("[", "").replace(",", "").split()]
    assert len(bounds) == 3 * 2 * len([name for name in metrics["metrics"] if name[0] == "1"])
    assert min(bounds) >= 0 and max(bounds) <= 100

    advice = next(line for line in said.splitlines() if line.startswith("diffusers-tpo train"))
    console.run(shlex.split(advice)[1:])
    config = tmp_path.with_name("quickstart-tkto") / "config.yaml"
    assert "loss_type: tkto" in config.read_text() and config.with_name("pytorch_lora_weights.safetensors").is_file()
