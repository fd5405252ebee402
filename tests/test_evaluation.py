"""The implicit judgement against a model whose errors are known, and intervals against simulation."""

import numpy as np
import pytest
import tiny
import torch
from diffusers import DDPMScheduler
from torch.testing import assert_close

from diffusers_tpo.evaluation import error_matrix, mean_interval, paired_difference, prefers_matched
from diffusers_tpo.families import StableDiffusion


class KnownFamily:
    """Predicts the noise of clean latents that are all zero, plus an offset that its prompt carries."""

    def __init__(self, scheduler):
        self.scheduler, self.timesteps = scheduler, []

    def predict(self, denoiser, latents, timesteps, cond):
        self.timesteps += timesteps.tolist()
        sigma = (1 - self.scheduler.alphas_cumprod[timesteps]).sqrt().view(-1, 1, 1, 1)
        return latents / sigma + cond["offset"].view(-1, 1, 1, 1)


def test_the_error_matrix_of_a_model_with_known_errors():
    """x0 = 0, so x_t / sigma is the noise itself, and the error of a prompt is its offset squared."""
    scheduler = DDPMScheduler()
    family = KnownFamily(scheduler)
    offsets = torch.tensor([[0.1, 0.5, -0.5], [0.2, 0.1, 1.0]])
    conds = [{"offset": column} for column in offsets.T]
    errors = error_matrix(family, torch.nn.Identity(), scheduler, torch.zeros(2, *tiny.LATENT), conds, strata=4)
    assert_close(errors, offsets.square(), rtol=1e-3, atol=1e-5)
    assert prefers_matched(errors).tolist() == [[1.0, 1.0], [0.0, 1.0]]
    for row in range(2):  # one timestep in each quarter of the schedule, the same for all prompts
        drawn = family.timesteps[row::2]
        assert [t // 250 for t in drawn] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert all(len(set(drawn[i : i + 3])) == 1 for i in range(0, 12, 3))


@pytest.fixture(scope="module")
def judge():
    pipe, family = tiny.make_pipe(), StableDiffusion()
    latents = torch.randn(5, *tiny.LATENT, generator=torch.Generator().manual_seed(0))

    def run(columns: list[list[str]], **settings):
        with torch.no_grad():
            conds = [family.encode_prompts(pipe, prompts) for prompts in columns]
        return error_matrix(family, pipe.unet, DDPMScheduler(), latents, conds, strata=3, **settings)

    return run


def test_identical_prompts_have_exactly_equal_errors_and_others_differ(judge):
    errors = judge([["cat"] * 5, ["cat"] * 5, ["dog"] * 5])
    assert torch.equal(errors[:, 0], errors[:, 1])
    assert (errors[:, 0] != errors[:, 2]).all()
    assert len(set(errors[:, 0].tolist())) == 5
    assert prefers_matched(errors)[:, 0].tolist() == [0.0] * 5  # a tie is no preference


def test_the_batch_size_changes_nothing_and_the_seed_does(judge):
    columns = [[f"cat {i}" for i in range(5)], [f"dog {i}" for i in range(5)]]
    whole = judge(columns)
    assert_close(judge(columns, batch_size=2), whole, **tiny.FLOAT_TOLERANCE)
    assert not torch.allclose(judge(columns, seed=1), whole)


def test_the_interval_by_hand():
    """Mean 3, standard error sqrt(2.5 / 5) = 0.7071, t(0.975, 4) = 2.7764."""
    interval = mean_interval([1, 2, 3, 4, 5])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((3, 3 - 1.9632, 3 + 1.9632), abs=1e-4)
    assert interval.excludes_zero() and not mean_interval([-1, 2]).excludes_zero()
    assert mean_interval([-3, -3.1, -2.9]).excludes_zero()
    assert str(interval) == "3 [1.04, 4.96]"


def test_seeds_of_one_prompt_are_averaged_first():
    """Three copies of the same prompts are no new evidence."""
    values = [0.0, 1.0, 0.5, 0.2]
    assert mean_interval([values] * 3) == mean_interval(values)
    assert mean_interval([[0.0, 2.0], [2.0, 4.0]]) == mean_interval([1.0, 3.0])


@pytest.mark.parametrize("draw", [lambda rng: rng.normal(3, 2, 12), lambda rng: rng.random(200) < 0.4])
def test_the_interval_holds_the_truth_95_times_in_100(draw):
    rng = np.random.default_rng(0)
    truth = 3 if draw(np.random.default_rng(1)).dtype == float else 0.4
    intervals = [mean_interval(draw(rng)) for _ in range(1000)]
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.97


def test_the_paired_difference_holds_the_truth_and_is_narrower_than_the_unpaired():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        difficulty = rng.normal(0, 5, 40)
        ours, theirs = difficulty + 0.5 + rng.normal(0, 0.5, 40), difficulty + rng.normal(0, 0.5, 40)
        interval = paired_difference(ours, theirs)
        covered.append(interval.low <= 0.5 <= interval.high)
    assert 0.93 <= np.mean(covered) <= 0.97
    single = mean_interval(ours)
    assert interval.high - interval.low < 0.5 * (single.high - single.low)
    assert interval.mean == pytest.approx(np.mean(ours) - np.mean(theirs))


def test_one_value_has_an_infinite_interval():
    for values in ([0.5], [[0.5], [0.5]]):
        interval = mean_interval(values)
        assert (interval.mean, interval.low, interval.high) == (0.5, -np.inf, np.inf)
        assert not interval.excludes_zero()
    assert not paired_difference([1.0], [0.0]).excludes_zero()
