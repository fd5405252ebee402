"""One optimizer step: the mean of its passes, clipped or not, at the rate that it says."""

import pytest
import torch
from accelerate import Accelerator
from conftest import reset_accelerate
from diffusers.optimization import get_scheduler

from diffusers_tpo.training.step import Stepper


@pytest.fixture
def make_stepper():
    """A plain model that learns by gradient descent at rate 1, and its stepper."""

    def make(accumulation_steps: int = 1, schedule: str = "constant", **options):
        reset_accelerate()
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation_steps)
        model = torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
        rates = get_scheduler(schedule, optimizer.optimizer, num_warmup_steps=2, num_training_steps=4)
        return model, Stepper([*model.parameters()], optimizer, rates, accelerator, **options)

    yield make
    reset_accelerate()


def run_pass(model, stepper: Stepper, scale: float = 1.0) -> None:
    loss = model(torch.tensor([[1.0, 2.0, 3.0]]) * scale).mean()
    stepper.backward(loss, {"loss": loss.detach()}, rows=[0])


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_shorter_last_window_has_the_mean_of_its_own_passes(make_stepper, passes):
    """As at the end of an epoch whose passes are no multiple of three."""
    model, stepper = make_stepper(accumulation_steps=3, max_grad_norm=0)
    for _ in range(passes):
        run_pass(model, stepper)
    assert stepper.step().metrics["grad_norm"] == pytest.approx(14**0.5)
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[0.0, -1.0, -2.0]]))


@pytest.mark.parametrize(("bound", "length"), [(0, 14**0.5), (100, 14**0.5), (0.5, 0.5)])
def test_gradients_are_clipped_to_a_norm_and_never_with_a_norm_of_0(make_stepper, bound, length):
    model, stepper = make_stepper(max_grad_norm=bound)
    run_pass(model, stepper)
    assert stepper.step().metrics["grad_norm"] == pytest.approx(14**0.5)  # before clipping
    assert (1 - model.weight).norm().item() == pytest.approx(length, rel=1e-4)


def test_the_rate_is_that_of_the_step(make_stepper):
    model, stepper = make_stepper(schedule="linear", max_grad_norm=0)
    for rate in (0.0, 0.5, 1.0, 0.5):
        before = model.weight.detach().clone()
        run_pass(model, stepper)
        assert stepper.step().metrics["lr"] == rate
        torch.testing.assert_close(before - model.weight.detach(), rate * torch.tensor([[1.0, 2.0, 3.0]]))


def test_a_stepper_goes_on_from_its_state(make_stepper):
    model, stepper = make_stepper(schedule="linear")
    run_pass(model, stepper, scale=float("inf"))
    result = stepper.step(is_asked_to_stop=True)
    assert result.fault.startswith("loss inf, gradient norm ") and result.is_asked_to_stop
    assert "loss" not in result.metrics and result.metrics["skipped_steps"] == 1
    state = stepper.state()
    model, stepper = make_stepper(schedule="linear")
    stepper.load(state)
    run_pass(model, stepper)
    assert stepper.step().metrics["lr"] == 0.5 and stepper.skipped_steps == 1
