"""Tables of figures are the same after they were written and read, and the studies make them."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from diffusers_tpo.intervals import Interval
from diffusers_tpo.shapes.scenes import PRINCIPLES
from diffusers_tpo.tables import Percent, Table, read_tables, write_tables


TABLE = Table(["arm", "share", "r"], [["a | b", Percent(0.5, 0.25, 0.75), Interval(0.1, -0.2, 0.3)], ["c", "-", ""]])

EXAMPLES = Path(__file__).parents[1] / "examples" / "text_preference"


@pytest.fixture(scope="module")
def study() -> dict:
    return runpy.run_path(str(EXAMPLES / "study_shapes.py"))


def test_what_was_written_is_read(tmp_path):
    write_tables(tmp_path / "t.json", {"main": TABLE, "empty": Table(["x"], [])}, command="x 'é'", seeds=[0, 1])
    assert read_tables(tmp_path / "t.json") == {"main": TABLE, "empty": Table(["x"], [])}
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["command"] == "x 'é'" and content["seeds"] == [0, 1]


def test_a_percentage_is_shown_times_100():
    assert "| 50.0 [25.0, 75.0] | 0.10 [-0.20, 0.30] |" in TABLE.markdown()


def test_a_study_s_tables_say_what_was_judged(study):
    """Two arms of two captions: at guidance 1 the base has one of two right, the other arm both."""
    scales = (1.0, 2.0)
    base = {
        f"{scale:g}/{fact}": np.array([1.0, 0.0]) for scale in scales for fact in ("aligned", *PRINCIPLES, "clean")
    }
    base |= {"implicit/accuracy": np.array([1.0, 1.0]), "implicit/score_relative": np.array([0.5, 0.7])}
    better = base | {"1/aligned": np.array([1.0, 1.0])}
    tables = study["report"]({"base": [base, base], "SFT, LoRA": [better, better]}, scales, "base")
    assert {arm: (one.mean, two.mean, best) for arm, one, two, best, _ in tables["aligned"].rows} == {
        "base": (0.5, 0.5, "1"),
        "SFT, LoRA": (1.0, 0.5, "1"),
    }
    ((arm, rival, at_one, at_two, at_best), *more) = tables["differences"].rows
    assert (arm, rival, at_one.mean, at_two.mean, at_best.mean) == ("SFT, LoRA", "base", 0.5, 0.0, 0.5)
    assert tables["facts"].header[-1] == "implicit margin" and tables["facts"].rows[0][-1].mean == 0.6
    assert set(tables) == set(study["TITLES"])
