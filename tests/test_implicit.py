"""The implicit judgement against a model whose errors are known, and against a real tiny pipeline."""

import numpy as np
import pytest
import tiny
import torch
from diffusers import DDPMScheduler
from scipy import stats
from torch.testing import assert_close

from diffusers_tpo.evaluation.implicit import (
    ErrorMatrix,
    corrected_accuracy,
    error_matrix,
    preference_values,
    prompt_divergence,
    retrieval_accuracy,
)
from diffusers_tpo.families import StableDiffusion
from diffusers_tpo.intervals import mean_interval
from diffusers_tpo.models.adapters import adapters_off


class KnownFamily:
    """Predicts the noise of clean latents that are all zero, plus an offset that its prompt names."""

    def __init__(self):
        self.scheduler, self.timesteps = DDPMScheduler(), []

    def encode_prompts(self, pipe, prompts):
        return {"offset": torch.tensor([float(prompt) for prompt in prompts])}

    def encode_sizes(self, sizes):
        return {}

    def predict(self, denoiser, latents, timesteps, cond):
        self.timesteps += timesteps.tolist()
        sigma = (1 - self.scheduler.alphas_cumprod[timesteps]).sqrt().view(-1, 1, 1, 1)
        return latents / sigma + cond["offset"].view(-1, 1, 1, 1)


def known(prompts: list[list[str]], family=None, **settings) -> ErrorMatrix:
    family, latents = family or KnownFamily(), torch.zeros(len(prompts), *tiny.LATENT)
    return error_matrix(
        family, None, torch.nn.Identity(), family.scheduler, latents, torch.zeros(len(prompts), 6), prompts, **settings
    )


def test_the_error_matrix_of_a_model_with_known_errors():
    """x0 = 0, so x_t / sigma is the noise itself, and the error of a prompt is its offset squared."""
    family = KnownFamily()
    errors = known([["0.1", "0.5", "-0.5"], ["0.2", "0.1"]], family, strata=4, repeats=1)
    expected = torch.tensor([[0.01, 0.25, 0.25], [0.04, 0.01, torch.nan]])
    assert_close(errors.mean(), expected, rtol=1e-3, atol=1e-5, equal_nan=True)
    assert errors.draws.shape == (4, 1, 2, 3)
    drawn = np.array(family.timesteps).reshape(4, 5)  # a forward pass of five rows in each quarter of the schedule
    assert (drawn // 250 == np.arange(4)[:, None]).all()
    for image in (drawn[:, :3], drawn[:, 3:]):  # the same timestep for all prompts of an image
        assert (image == image[:, :1]).all()
    assert (drawn[:, 0] != drawn[:, 3]).any()


def constant(means: list[list[float]]) -> ErrorMatrix:
    return ErrorMatrix(torch.tensor(means).expand(2, 2, -1, -1))


def test_preference_values_by_hand():
    errors = constant([[1.0, 1.5, 0.5], [2.0, 2.0, torch.nan]])
    reference = constant([[1.5, 1.5, 1.5], [1.0, 3.0, torch.nan]])
    values = preference_values(errors, [["content", "spatial"], ["spatial"]], reference)
    expected = {
        "error/matched": [1.0, 2.0],
        "implicit/score": [0.0, 0.0],
        "implicit/score_error": [0.0, 0.0],  # all draws agree
        "implicit/score_relative": [0.0, 0.0],
        "implicit/score_relative/content": [0.5, np.nan],
        "implicit/score_relative/spatial": [-0.5, 0.0],
        "implicit/accuracy": [0.5, 0.5],
        "implicit/accuracy_corrected": [0.5, 0.5],  # as the draws agree, there is no noise to take out
        "implicit/accuracy_corrected/content": [np.nan, np.nan],  # of one image nothing can be told
        "implicit/accuracy_corrected/spatial": [0.0, 0.5],
        "implicit/accuracy/content": [1.0, np.nan],
        "implicit/accuracy/spatial": [0.0, 0.5],  # a tie is half a preference
        "reward/matched": [0.5, -1.0],
        "reward/matched_relative": [0.5 / 1.5, -1.0],
        "reward/margin": [0.5 - (0.0 + 1.0) / 2, -1.0 - 1.0],
        "reward/accuracy": [0.5, 0.0],
        "reward/accuracy_corrected": [0.5, 0.0],
    }
    assert set(values) == set(expected)
    for name, wanted in expected.items():
        assert values[name] == pytest.approx(wanted, nan_ok=True), name


def test_without_principles_or_reference_there_are_fewer_values():
    values = preference_values(constant([[1.0, 2.0]]), [[""]])
    names = {"error/matched", "implicit/score", "implicit/score_error", "implicit/score_relative", "implicit/accuracy"}
    names.add("implicit/accuracy_corrected")
    assert set(values) == names
    once = preference_values(ErrorMatrix(torch.tensor([[1.0, 2.0]]).expand(2, 1, -1, -1)), [[""]])
    assert set(once) == names - {"implicit/score_error"}
    single = preference_values(ErrorMatrix(torch.tensor([[1.0, 2.0]]).expand(1, 1, -1, -1)), [[""]])
    assert set(single) == names - {"implicit/score_error", "implicit/accuracy_corrected"}


def test_the_error_of_the_score_by_hand():
    """Scores of the draws 1, 3 and 2, 2 in two strata, each the mean over two mismatched prompts: as the standard error below."""
    margins = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).view(2, 2, 1, 1)
    draws = torch.cat([torch.ones(2, 2, 1, 1), 1 + margins - 0.5, 1 + margins + 0.5], dim=-1)
    values = preference_values(ErrorMatrix(draws), [["content", "spatial"]])
    assert values["implicit/score"] == pytest.approx([2.0]) and values["implicit/score_error"] == pytest.approx([0.5])


def test_retrieval_shares_a_tie():
    errors = constant([[1.0, 2.0, 3.0], [1.0, 1.0, 3.0], [0.0, 1.0, 2.0]])
    assert retrieval_accuracy(errors).tolist() == [1.0, 0.5, 0.0]


def test_the_divergence_of_p_c_by_hand():
    """One image and errors 0 and log 3 at temperature 1: p = (3/4, 1/4) against (1/2, 1/2)."""
    policy, reference = constant([[0.0, float(np.log(3))]]), constant([[1.0, 1.0]])
    found = prompt_divergence(policy, reference, temperature=1.0)
    kl = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    middle = np.array([0.625, 0.375])
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    js = (np.sum(p * np.log(p / middle)) + np.sum(q * np.log(q / middle))) / 2
    assert found["kl"].mean == pytest.approx(kl) and found["js"].mean == pytest.approx(js)
    assert found["kl"].low == 0 and found["kl"].high == np.inf  # one image says nothing of others


def test_the_divergence_is_of_the_average_over_images():
    """Both models read their own caption from every image, one of them twice as surely: p(c) is uniform all the same."""
    policy, reference = constant((2.0 - 2 * np.eye(4)).tolist()), constant((1.0 - np.eye(4)).tolist())
    found = prompt_divergence(policy, reference)
    assert found["kl"].mean == pytest.approx(0, abs=1e-9) and found["js"].mean == pytest.approx(0, abs=1e-9)
    assert found["kl"].low == 0 and found["kl"].high > 0


def test_the_interval_of_the_divergence_is_the_jackknifes():
    """Half the width is t(0.975, n - 1) times the standard error of the pseudo-values, as scipy computes it."""
    rng, n = np.random.default_rng(1), 7
    reference = rng.normal(size=(n, 3))
    policy = reference + rng.normal(size=(n, 3)) + np.array([2.0, 0, -2.0])

    def kl(rows):
        found = prompt_divergence(constant(policy[rows].tolist()), constant(reference[rows].tolist()), temperature=1.0)
        return found["kl"]

    whole, every = kl(np.arange(n)), np.arange(n)
    pseudo = [n * whole.mean - (n - 1) * kl(every[every != left_out]).mean for left_out in every]
    half = stats.t.ppf(0.975, n - 1) * stats.sem(pseudo)
    assert whole.high - whole.mean == pytest.approx(half, rel=1e-5)


def test_the_interval_of_the_divergence_says_how_far_other_images_move_it():
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        reference = rng.normal(size=(60, 5))
        policy = reference + rng.normal(size=(60, 5)) * 0.3 + np.array([0.8, 0, 0, 0, -0.8])
        found.append(prompt_divergence(constant(policy.tolist()), constant(reference.tolist()), temperature=1.0)["kl"])
    truth = np.mean([i.mean for i in found])
    assert 0.9 <= np.mean([i.low <= truth <= i.high for i in found]) <= 0.99


def test_the_standard_error_by_hand():
    """Draws 1 and 3 in one stratum, 2 and 2 in the other: variances 2 and 0, so sqrt((2 / 2 + 0 / 2) / 4) = 1 / 2."""
    draws = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).view(2, 2, 1, 1)
    assert ErrorMatrix(draws).standard_error().item() == pytest.approx(0.5)
    assert ErrorMatrix(draws[:, :1]).standard_error().isnan().all()


@pytest.fixture(scope="module")
def judge():
    pipe, family = tiny.make_pipe(), StableDiffusion()
    latents = torch.randn(5, *tiny.LATENT, generator=torch.Generator().manual_seed(0))

    def run(prompts: list[list[str]], **settings):
        settings = {"strata": 3, "repeats": 2} | settings
        part = latents[: len(prompts)]
        return error_matrix(
            family, pipe, pipe.unet, DDPMScheduler(), part, torch.zeros(len(part), 6), prompts, **settings
        )

    return run


def test_identical_prompts_have_exactly_equal_errors_and_others_differ(judge):
    errors = judge([["cat", "cat", "dog"]] * 5).mean()
    assert torch.equal(errors[:, 0], errors[:, 1])
    assert (errors[:, 0] != errors[:, 2]).all()
    assert len(set(errors[:, 0].tolist())) == 5


def test_the_standard_error_says_how_far_other_seeds_move_the_estimate(judge):
    prompts = [["cat", "dog"]] * 5
    found = [judge(prompts, seed=seed) for seed in range(30)]
    for matrices in (found, [matrix.margins() for matrix in found]):
        spread = torch.stack([matrix.mean() for matrix in matrices]).std(dim=0).mean()
        claimed = torch.stack([matrix.standard_error() for matrix in matrices]).square().mean(dim=0).sqrt().mean()
        assert 0.7 < claimed / spread < 1.4
    margins, single = found[0].margins().standard_error().mean(), found[0].standard_error().mean()
    assert margins < 0.5 * single  # noise that two prompts share cancels in their difference


def test_the_batch_size_changes_nothing_and_the_seed_does(judge):
    prompts = [[f"cat {i}", f"dog {i}", f"red {i}"][: 3 - i % 2] for i in range(5)]
    whole = judge(prompts).mean()
    for batch_size in (1, 2, 5):
        assert_close(judge(prompts, batch_size=batch_size).mean(), whole, **tiny.FLOAT_TOLERANCE, equal_nan=True)
    assert not torch.allclose(judge(prompts, seed=1).mean(), whole, equal_nan=True)
    assert_close(judge(prompts[:2]).mean(), whole[:2], **tiny.FLOAT_TOLERANCE, equal_nan=True)


def test_a_new_policy_has_exactly_the_errors_of_its_reference():
    pipe, family = tiny.make_policy(), StableDiffusion()
    latents, sizes, prompts = tiny.randn(2, *tiny.LATENT), torch.zeros(2, 6), [["cat", "dog"], ["red cat", "cat"]]
    errors = error_matrix(family, pipe, pipe.unet, DDPMScheduler(), latents, sizes, prompts, strata=2)
    with adapters_off(pipe.unet) as bare:
        reference = error_matrix(family, pipe, bare, DDPMScheduler(), latents, sizes, prompts, strata=2)
    values = preference_values(errors, [["content"]] * 2, reference)
    assert values["reward/margin"].tolist() == [0, 0] and values["reward/accuracy"].tolist() == [0.5, 0.5]


STRATA = np.linspace(0.3, 1.7, 8)[:, None, None, None]  # noise grows along the schedule


def noisy(margins: np.ndarray, rng, strata: int = 8, repeats: int = 1) -> ErrorMatrix:
    """Draws of margins `(N, M)`; the mean of eight of them is 2.5 times as much noise as margin, in variance."""
    spread = STRATA[:strata] / np.sqrt((STRATA[:strata] ** 2).mean())
    noise = np.sqrt(20) * margins.std() * spread * rng.normal(size=(strata, repeats, *margins.shape))
    return ErrorMatrix(torch.from_numpy(margins + noise))


WORLDS = {  # margins whose share of positive ones is 0.70; how far the estimate may be off
    "normal": (lambda rng: rng.normal(0.5244, 1, (200, 4)), 0.015),
    "of images": (lambda rng: rng.normal(0.5244, 0.7071, (200, 1)) + rng.normal(0, 0.7071, (200, 4)), 0.015),
    "skewed": (lambda rng: rng.exponential(1, (200, 4)) - 0.3567, 0.04),
    "two heaps": (lambda rng: np.where(rng.random((200, 4)) < 0.7, 1, -1) * rng.uniform(0.5, 1.5, (200, 4)), 0.04),
}


@pytest.mark.parametrize("world", WORLDS)
def test_the_accuracy_of_few_draws_is_corrected_to_the_known_truth(world):
    draw, tolerance = WORLDS[world]
    rng, raw, found = np.random.default_rng(0), [], []
    for _ in range(60):
        matrix = noisy(draw(rng), rng)
        raw.append(float((matrix.mean() > 0).double().mean()))
        found.append(mean_interval(corrected_accuracy(matrix)))
    assert np.mean(raw) < 0.64  # the bias of the measured share
    told = [i for i in found if np.isfinite(i.mean)]
    assert len(told) >= 57  # by chance some draws look like nothing but noise
    assert np.mean([i.mean for i in told]) == pytest.approx(0.70, abs=tolerance)
    if tolerance < 0.02:
        assert np.mean([i.low <= 0.70 <= i.high for i in told]) >= 0.9


def test_repeats_tell_the_noise_where_margins_differ_between_strata():
    """A margin that grows along the schedule is no noise, and the repeats of a stratum do not take it for some."""
    rng, found = np.random.default_rng(0), []
    for _ in range(30):
        margins = rng.normal(0.5244, 1, (200, 4))
        slope = 1 + np.linspace(-1, 1, 4)[:, None, None, None]
        draws = margins * slope + 3 * rng.normal(size=(4, 2, 200, 4))
        found.append(mean_interval(corrected_accuracy(ErrorMatrix(torch.from_numpy(draws)))).mean)
    assert np.mean(found) == pytest.approx(0.70, abs=0.015)


def test_draws_that_are_nothing_but_noise_give_no_corrected_accuracy():
    rng = np.random.default_rng(0)
    assert np.isnan(corrected_accuracy(ErrorMatrix(torch.from_numpy(rng.normal(size=(8, 1, 50, 2)))))).all()
    assert np.isnan(corrected_accuracy(constant([[1.0, 2.0]]))).all()  # one image
    assert np.isnan(corrected_accuracy(ErrorMatrix(torch.from_numpy(rng.normal(size=(1, 1, 50, 2)))))).all()


def test_an_image_without_a_pair_has_no_corrected_accuracy():
    draws = noisy(np.random.default_rng(1).normal(0.5, 1, (60, 2)), np.random.default_rng(2)).draws
    draws[:, :, 3] = torch.nan
    found = corrected_accuracy(ErrorMatrix(draws))
    assert np.isnan(found[3]) and np.isfinite(np.delete(found, 3)).all()
    assert np.delete(found, 3) == pytest.approx(
        corrected_accuracy(ErrorMatrix(draws[:, :, [*range(3), *range(4, 60)]]))
    )
