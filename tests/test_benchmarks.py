"""The benchmarks' arithmetic, and that what they compare is the same objective. No time is asserted."""

import sys
from pathlib import Path

import pytest
import tiny
import torch
from torch.profiler import ProfilerActivity, profile


sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import bench  # noqa: E402
import loop  # noqa: E402
import models  # noqa: E402
import script  # noqa: E402
import speed  # noqa: E402
from steps import Bench, PlainStep, Step  # noqa: E402
from timing import in_turn, is_met, ratio  # noqa: E402


@pytest.fixture(params=[True, False], ids=["lora", "full"])
def workbench(request, tmp_path):
    return Bench(tiny.make_pipe(), request.param, images=2, side=tiny.RESOLUTION, folder=tmp_path)


def test_a_ratio_is_one_of_medians_with_an_interval_over_whole_rounds():
    """Ours 2, 4, 9 over 1, 2, 3: medians 4 / 2. Both slow in one round: every round's ratio is 2, and so is each resample's."""
    assert ratio("x", [2, 4, 9], [1, 2, 3], "<= 1.5", "y")["ratio"] == 2
    even = ratio("x", [2, 4, 90], [1, 2, 45], None, "y")
    assert even == {"name": "x", "ratio": 2, "low": 2, "high": 2, "target": None, "rival": "y"}
    uneven = ratio("x", [2, 4, 9], [1, 2, 3], "<= 1.5", "y")
    assert uneven["low"] == 2 and uneven["high"] == 3
    assert [is_met(x) for x in (even, uneven, uneven | {"target": ">= 1.5"})] == [None, False, True]


def test_functions_are_called_in_turn():
    calls = []
    times = in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2, warmup=1)
    assert calls == list("ababab") and [len(values) for values in times.values()] == [2, 2]


def test_the_plain_step_has_our_loss(workbench):
    speed.check_losses(workbench, PlainStep(workbench))


def test_a_plain_step_of_another_loss_is_noticed(workbench):
    with pytest.raises(AssertionError):
        speed.check_losses(workbench, PlainStep(workbench, beta=4000.0))


def test_both_steps_train(workbench):
    weights = [parameter.detach().clone() for parameter in workbench.parameters]
    for step in (Step(workbench, loss_type="tdpo", kept=True), PlainStep(workbench)):
        step()
        assert any((new != old).any() for new, old in zip(workbench.parameters, weights, strict=True))
        weights = [parameter.detach().clone() for parameter in workbench.parameters]


@pytest.mark.slow
def test_the_small_model_keeps_the_proportions():
    """`flops(make_sd15, 512)` are 803.3, 1116.7 and 13.3 GFLOP: 1 : 1.390 : 0.017."""
    unet, vae, text = models.flops(models.make_small, 128).values()
    assert vae / unet == pytest.approx(1.390, abs=0.05) and text / unet == pytest.approx(0.017, abs=0.01)


def test_only_the_outermost_part_is_timed():
    watch = loop.Stopwatch()
    batches = watch.batches(lambda: iter("abc"))()
    next(batches)
    with watch.part("reference forward"), watch.part("policy forward"):
        pass
    next(batches)
    first, second = watch.steps
    assert list(first) == ["loader", "reference forward", "all"] and list(second) == ["loader"]
    assert sum(script.shares_of([first]).values()) == pytest.approx(1)
    assert loop.as_flags({"rank": 4, "use_lora": True, "offload": False}) == ["--rank", "4", "--use_lora"]


def test_memory_is_what_was_held_at_once():
    """4000 bytes are given back before 2000 and 1000 are held together; a tensor from before counts by its storage, once."""
    before = loop.live_bytes()
    whole = torch.zeros(10_000)
    view = whole[:10]
    assert loop.live_bytes() - before == whole.nbytes and view.nbytes == 40
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        torch.zeros(1000)
        held = torch.zeros(500), torch.zeros(250)
    assert loop.allocated_peak(record) == 4000 and sum(x.nbytes for x in held) == 3000


def test_the_table_says_what_is_missed():
    figures = [ratio("x", [3.0], [1.0], "<= 2.0", "y"), ratio("z", [3.0], [1.0], ">= 2.0", "y")]
    figures[0]["shares"] = {"loader": 0.25}
    rows = {"speed": {"machine": "a", "date": "b", "seconds": 1, "figures": figures}}
    text = " ".join(bench.as_markdown(rows, {"small": "1 : 2"}).split())
    assert "| x | y | 3 [3, 3] | <= 2.0 | **no** |" in text and "| z | y | 3 [3, 3] | >= 2.0 | yes |" in text
    assert "| loader | 25.0% |" in text and "- small: 1 : 2" in text
