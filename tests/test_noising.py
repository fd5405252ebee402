"""Counted randomness and the forward process."""

import pytest
import tiny
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
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


def flow(**config) -> FlowMatchEulerDiscreteScheduler:
    return training_scheduler(FlowMatchEulerDiscreteScheduler(**config))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_is_a_straight_line_and_its_clean_latents_come_back(latents, shift):
    noised = add_noise(flow(shift=shift), latents, DRAWS)
    sigmas = (noised.timesteps / 1000).view(-1, 1, 1, 1)
    assert_close(noised.latents - sigmas * noised.target, latents, rtol=1e-4, atol=1e-5)
    noise = noised.target + latents
    assert_close(noised.latents, (1 - sigmas) * latents + sigmas * noise, rtol=1e-4, atol=1e-5)
    assert noised.weights is None and len(set(noised.timesteps.tolist())) == 6


def test_the_shift_and_the_range_of_a_flow_by_hand():
    """sigma = 3 u / (1 + 2 u): u = 1/2 becomes 3/4; the schedule of the pipeline holds the same points."""
    many = [Draw(0, row) for row in range(400)]
    zeros = torch.zeros(400, *tiny.LATENT)
    plain, shifted = (add_noise(flow(shift=shift), zeros, many).timesteps / 1000 for shift in (1.0, 3.0))
    assert_close(shifted, 3 * plain / (1 + 2 * plain))
    assert 0 <= plain.min() < 0.02 and 0.98 < plain.max() < 1 and abs(plain.mean() - 0.5) < 0.05
    half = add_noise(flow(shift=3.0), zeros, many, timestep_range=(0.5, 1.0)).timesteps / 1000
    assert half.min() >= 0.75
    pipeline = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert_close(pipeline.sigmas[499], torch.tensor(3 * 0.501 / (1 + 2 * 0.501)), rtol=1e-3, atol=1e-3)


def test_a_dynamic_shift_is_left_to_the_resolution_and_flow_sigmas_are_a_flow():
    assert flow(shift=3.0, use_dynamic_shifting=True).config.shift == 1.0
    from diffusers import DPMSolverMultistepScheduler

    sana = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0)
    assert training_scheduler(sana).config.shift == 2.0


def test_the_split_of_a_flow_batch_changes_nothing(latents):
    together = add_noise(flow(), latents, DRAWS, noise_offset=0.1)
    parts = [
        add_noise(flow(), latents[rows], [DRAWS[r] for r in rows], noise_offset=0.1) for rows in ([0, 1], [2, 3, 4, 5])
    ]
    for name in ("latents", "timesteps", "target"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(together, name))


def test_what_a_flow_cannot_take_is_a_user_error(latents):
    with pytest.raises(UserError, match="snr_gamma weighs the timesteps of diffusion models"):
        add_noise(flow(), latents, DRAWS, snr_gamma=5.0)
    with pytest.raises(UserError, match="prediction_type 'epsilon' is for diffusion models"):
        training_scheduler(FlowMatchEulerDiscreteScheduler(), "epsilon")


def test_a_scheduler_of_neither_kind_is_a_user_error():
    from diffusers import CMStochasticIterativeScheduler

    with pytest.raises(UserError, match="CMStochasticIterativeScheduler, which has no discrete noise schedule"):
        training_scheduler(CMStochasticIterativeScheduler())


FLOW = FlowMatchEulerDiscreteScheduler(shift=1.0)
MANY = [Draw(0, row) for row in range(400)]


def shares(**options) -> torch.Tensor:
    return add_noise(FLOW, torch.zeros(400, 1, 1, 1), MANY, **options).timesteps / 1000


def test_weighting_schemes_draw_the_noise_level_from_their_density():
    """Logit-normal: the logit of 1 - sigma is normal so. Mode, scale s: its density at 1/2 is the highest."""
    logit = torch.logit(shares(weighting_scheme="logit_normal", logit_mean=0.5, logit_std=0.3))
    assert abs(logit.mean().item() + 0.5) < 0.05 and abs(logit.std().item() - 0.3) < 0.04
    even, mode = shares(), shares(weighting_scheme="mode", mode_scale=1.29)
    middle = [((part - 0.5).abs() < 0.2).float().mean().item() for part in (even, mode)]
    assert middle[0] == pytest.approx(0.4, abs=0.06) and middle[1] > 0.5
    assert 0.3 <= shares(weighting_scheme="logit_normal", timestep_range=(0.3, 0.7)).min() <= 0.7


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(
    "scheme", [{"logit_mean": -1.0, "logit_std": 0.7}, {"mode_scale": 1.5}], ids=["logit", "mode"]
)
def test_the_recipes_of_diffusers_scripts_mean_the_same(scheme, shift):
    """Its SD3 and FLUX scripts look the drawn share up in the scheduler's timesteps, which begin with noise alone."""
    name = "logit_normal" if "logit_mean" in scheme else "mode"
    flow = FlowMatchEulerDiscreteScheduler(1000, shift=shift)
    shape = {"logit_mean": None, "logit_std": None, "mode_scale": None} | scheme
    generator = torch.Generator().manual_seed(0)
    drawn = compute_density_for_timestep_sampling(name, 4000, **shape, generator=generator)
    theirs = flow.timesteps[(drawn * 1000).long()] / 1000
    ours = add_noise(training_scheduler(flow), torch.zeros(400, 1, 1, 1), MANY, weighting_scheme=name, **scheme)
    quantiles = torch.tensor([0.1, 0.5, 0.9])
    assert_close((ours.timesteps / 1000).quantile(quantiles), theirs.quantile(quantiles), rtol=0, atol=0.09)


def test_min_snr_weights_where_nothing_is_left_of_the_image():
    """With zero terminal SNR: the limit of min(snr, gamma) / snr is 1, of a velocity's 0."""
    for prediction_type, wanted in (("epsilon", 1.0), ("v_prediction", 0.0)):
        zero = DDPMScheduler(rescale_betas_zero_snr=True, prediction_type=prediction_type)
        noised = add_noise(zero, torch.zeros(1, 4, 1, 1), [Draw(0, 0)], (0.999, 1.0), snr_gamma=5.0)
        assert noised.timesteps.item() == 999 and noised.weights.item() == wanted


def test_weighting_schemes_that_weigh_the_error():
    """sigma_sqrt: 1 / sigma^2. cosmap: 2 / (pi (1 - 2 sigma + 2 sigma^2))."""
    sigma = shares()
    weights = add_noise(FLOW, torch.zeros(400, 1, 1, 1), MANY, weighting_scheme="sigma_sqrt").weights
    assert_close(weights, sigma.clamp(min=1e-3) ** -2)
    weights = add_noise(FLOW, torch.zeros(400, 1, 1, 1), MANY, weighting_scheme="cosmap").weights
    assert_close(weights, 2 / (torch.pi * (1 - 2 * sigma + 2 * sigma**2)))
    assert add_noise(FLOW, torch.zeros(400, 1, 1, 1), MANY).weights is None
    with pytest.raises(UserError, match="weighting_scheme 'mode' is for flow models, and this is a diffusion model"):
        add_noise(scheduler(), torch.zeros(6, 1, 1, 1), DRAWS, weighting_scheme="mode")
