"""Counted randomness and the forward process."""

import pytest
import tiny
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch.testing import assert_close

from diffusers_tpo import Draw, add_noise, training_scheduler
from diffusers_tpo.errors import UserError


DRAWS = [Draw(3, row, 1) for row in range(6)]


@pytest.fixture
def latents():
    return torch.randn(6, *tiny.LATENT, generator=torch.Generator().manual_seed(0))


def scheduler(prediction_type: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(prediction_type=prediction_type)


def test_the_batch_split_and_the_order_of_rows_change_nothing(latents):
    together = add_noise(scheduler(), latents, DRAWS, noise_offset=0.1)
    order = [4, 0, 5, 2, 1, 3]
    mixed = add_noise(scheduler(), latents[order], [DRAWS[row] for row in order], noise_offset=0.1)
    parts = [
        add_noise(scheduler(), latents[rows], [DRAWS[row] for row in rows], noise_offset=0.1)
        for rows in ([0], [1, 2, 3], [4, 5])
    ]
    for name in ("latents", "timesteps", "target"):
        assert torch.equal(getattr(mixed, name), getattr(together, name)[order])
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(together, name))


@pytest.mark.parametrize("other", [Draw(4, 0, 1), Draw(3, 1, 1), Draw(3, 0, 2), Draw(31, 0, 1), Draw(3, 0, 11)])
def test_another_seed_row_or_number_draws_otherwise(other):
    first = torch.randn(8, generator=Draw(3, 0, 1).generator("noise"))
    assert torch.equal(first, torch.randn(8, generator=Draw(3, 0, 1).generator("noise")))
    assert not torch.equal(first, torch.randn(8, generator=other.generator("noise")))


def test_another_purpose_draws_otherwise():
    noise, vae = (torch.randn(8, generator=Draw(0, 0).generator(purpose)) for purpose in ("noise", "vae"))
    assert not torch.equal(noise, vae)


def test_noise_is_standard_normal():
    noise = add_noise(scheduler(), torch.zeros(200, *tiny.LATENT), [Draw(0, row) for row in range(200)]).target
    assert abs(noise.mean().item()) < 0.02 and abs(noise.std().item() - 1) < 0.02
    assert abs(torch.corrcoef(noise.flatten(1)[:2])[0, 1].item()) < 0.3


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_clean_latents_follow_from_noisy_latents_and_target(latents, prediction_type):
    """x_t = a x0 + s eps. From eps: x0 = (x_t - s eps) / a. From v = a eps - s x0: x0 = a x_t - s v, since a^2 + s^2 = 1."""
    noised = add_noise(scheduler(prediction_type), latents, DRAWS, timestep_range=(0.0, 0.6))
    alpha = scheduler().alphas_cumprod[noised.timesteps].view(-1, 1, 1, 1)
    a, s = alpha.sqrt(), (1 - alpha).sqrt()
    from_epsilon, from_velocity = (noised.latents - s * noised.target) / a, a * noised.latents - s * noised.target
    assert_close(from_epsilon if prediction_type == "epsilon" else from_velocity, latents, rtol=1e-4, atol=1e-4)


def test_repeat_gives_blocks_of_the_same_rows(latents):
    noised = add_noise(scheduler(), latents, DRAWS, snr_gamma=5.0)
    repeated = noised.repeat(3)
    for name in ("latents", "timesteps", "target", "weights"):
        value = getattr(noised, name)
        assert torch.equal(getattr(repeated, name), torch.cat([value] * 3))
    assert add_noise(scheduler(), latents, DRAWS).repeat(2).weights is None


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.3, 0.31), (0.999, 1.0)])
def test_timesteps_stay_in_their_range_and_fill_it(bounds):
    draws = [Draw(0, row) for row in range(300)]
    timesteps = add_noise(scheduler(), torch.zeros(300, 1, 1, 1), draws, timestep_range=bounds).timesteps
    low, high = round(bounds[0] * 1000), round(bounds[1] * 1000)
    assert timesteps.min() >= low and timesteps.max() < high
    assert timesteps.max() - timesteps.min() >= 0.9 * (high - 1 - low)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights(latents, prediction_type):
    """snr = alpha / (1 - alpha); the weight is min(snr, 5) / snr for noise and min(snr, 5) / (snr + 1) for velocity."""
    noised = add_noise(scheduler(prediction_type), latents, DRAWS, snr_gamma=5.0)
    alpha = scheduler().alphas_cumprod[noised.timesteps]
    snr = alpha / (1 - alpha)
    capped = torch.minimum(snr, torch.tensor(5.0))
    assert_close(
        noised.weights, capped / snr if prediction_type == "epsilon" else capped / (snr + 1), rtol=1e-4, atol=0
    )


def test_noise_offset_shifts_whole_channels(latents):
    plain, shifted = (add_noise(scheduler(), latents, DRAWS, noise_offset=offset).target for offset in (0.0, 0.1))
    shift = shifted - plain
    assert shift.abs().max() > 0.01
    assert shift.flatten(2).std(dim=-1).max() < 1e-6  # the same for all pixels of a channel
    assert shift.mean(dim=(2, 3)).std() > 0.03  # another for every row and channel


def test_training_scheduler_keeps_the_noise_schedule_and_can_override_the_prediction_type():
    pipe = tiny.make_pipe("v_prediction")
    trained = training_scheduler(pipe.scheduler)
    assert trained.config.prediction_type == "v_prediction"
    assert torch.equal(trained.alphas_cumprod, pipe.scheduler.alphas_cumprod)
    assert training_scheduler(pipe.scheduler, "epsilon").config.prediction_type == "epsilon"


def test_a_scheduler_that_predicts_the_sample_is_a_user_error():
    with pytest.raises(UserError, match="prediction_type must be epsilon or v_prediction, got 'sample'"):
        training_scheduler(DDPMScheduler(prediction_type="sample"))


def test_a_flow_matching_scheduler_is_a_user_error():
    with pytest.raises(UserError, match="FlowMatchEulerDiscreteScheduler, which has no discrete noise schedule"):
        training_scheduler(FlowMatchEulerDiscreteScheduler())
