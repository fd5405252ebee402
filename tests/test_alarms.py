"""Numbers that are not finite: no step is taken with them, they are counted, and their rows are named."""

import pytest
import torch
from accelerate import Accelerator

from diffusers_tpo.training.alarms import Alarms, CollapseAlarm, FaultAlarm
from diffusers_tpo.training.step import Pass, Stepper, StepResult, offending_rows


def test_the_alarm_counts_faults_in_a_row_and_in_all():
    alarm = FaultAlarm(patience=2)
    assert [alarm.update(fault) for fault in (True, False, True, True, True)] == [False, False, False, True, False]
    assert alarm.in_a_row == 3 and "the last 2 steps were skipped" in str(alarm)
    assert not any(FaultAlarm(patience=0).update(True) for _ in range(5))


def test_a_resumed_run_counts_on_from_what_the_alarms_had_heard():
    """Two skipped steps, or two of a collapse, before a checkpoint and one after it are three in a row."""
    skipped = StepResult({}, "loss inf", False)
    fallen = StepResult({"reward/matched_relative": -0.9}, None, False)
    for heard, expected in ((skipped, "Not finite"), (fallen, "Collapse")):
        first, second, fresh = (Alarms(CollapseAlarm(0.5, 3), FaultAlarm(3), True) for _ in range(3))
        assert first.hear(1, heard) is None and first.hear(2, heard) is None
        second.load(first.state())
        assert expected in second.hear(3, heard).reason and fresh.hear(3, heard) is None


def test_rows_are_named_by_pass_or_all_where_only_the_gradient_is_at_fault():
    good, bad = {"loss": torch.tensor(1.0)}, {"loss": torch.tensor(float("nan"))}
    assert offending_rows([Pass(good, [5, 3]), Pass(bad, [9, 1]), Pass(good, [2])]) == [1, 9]
    assert offending_rows([Pass(good, [5, 3]), Pass(good, [2, 3])]) == [2, 3, 5]


@pytest.fixture
def half_precision():
    """An accelerator with the loss scale of fp16, which accelerate itself has on GPUs only."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**16), True
    return accelerator


def test_the_loss_scale_of_half_precision_shrinks_with_every_skipped_gradient(half_precision):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    model, optimizer = half_precision.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.1))
    half_precision.state._mixed_precision = "fp16"  # from here on, so that the model itself computes in float32
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer.optimizer, factor=1.0)
    stepper = Stepper([*model.parameters()], optimizer, schedule, half_precision)
    seen = []
    for fault in (None, "loss", "gradient", None, "logged loss", None):
        loss = model(torch.ones(2, 4)).square().mean() * (float("inf") if fault == "loss" else 1)
        logged = torch.tensor(float("nan")) if fault == "logged loss" else loss.detach()
        if fault == "gradient":
            loss.register_hook(lambda gradient: gradient * float("inf"))
        before = model.weight.detach().clone()
        stepper.backward(loss, {"loss": logged}, rows=[0])
        result = stepper.step()
        assert (result.fault is None) == (fault is None) == (not torch.equal(before, model.weight))
        assert {"lr", "skipped_steps"} <= result.metrics.keys() <= {"lr", "skipped_steps", "loss", "grad_norm"}
        assert not result.is_asked_to_stop
        seen.append(half_precision.scaler.get_scale() / 2**16)
    assert seen == [1, 0.5, 0.25, 0.25, 0.25, 0.25] and stepper.skipped_steps == 3
