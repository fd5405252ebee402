"""The answer to the empty prompt is held where it was, on a share of the images, in units of beta / 2."""

import pytest
import tiny
import torch
from torch.testing import assert_close

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.data.batch import num_empty
from diffusers_tpo.errors import UserError


IMAGES = 4


def make_batch(pipe, empty: int = 2, number: int = 0):
    """Noised rows of four images with two prompts each, and of the empty prompt of the first few."""
    draws = [Draw(0, row, number) for row in range(IMAGES)]
    latents = tiny.randn(IMAGES, *tiny.LATENT, seed=number)
    noised = add_noise(training_scheduler(pipe.scheduler), latents, draws).repeat(2, num_empty=empty)
    prompts = [f"{kind} {row}" for kind in ("cat", "dog") for row in range(IMAGES)] + [""] * empty
    with torch.no_grad():
        cond = TPOTrainer().family.encode_prompts(pipe, prompts)
    return noised, cond, torch.arange(2 * IMAGES) < IMAGES


def without_empty(noised, cond, is_matched):
    rows = slice(noised.num_prompted)
    return noised.part(rows), {name: value[rows] for name, value in cond.items()}, is_matched


@pytest.fixture
def pipe():
    return tiny.make_policy(b=0.05)


@pytest.mark.parametrize("loss_type", ["tdpo", "tkto"])
def test_the_terms_are_those_of_the_formula(pipe, loss_type):
    """null_anchor * beta/2 * mean error + null_keep * beta/2 * mean squared distance, over the images that a share stands for."""
    batch = make_batch(pipe)
    plain = tiny.make_trainer(loss_type=loss_type, beta=100.0)
    held = tiny.make_trainer(loss_type=loss_type, beta=100.0, null_anchor=0.3, null_keep=0.7, null_share=0.5)
    loss, metrics = held.tpo_loss(pipe.unet, *batch)
    expected, _ = plain.tpo_loss(pipe.unet, *without_empty(*batch))

    noised, cond, _ = batch
    rows, told = noised.part(slice(8, 10)), {"encoder_hidden_states": cond["encoder_hidden_states"][8:]}
    prediction = held.family.predict(pipe.unet, rows.latents, rows.timesteps, told)
    reference = held.reference_prediction(pipe.unet, rows, told)
    error = (prediction - rows.target).square().flatten(1).mean(dim=1)
    distance = (prediction - reference).square().flatten(1).mean(dim=1)
    assert_close(metrics["null/error"], error.mean())
    assert_close(metrics["null/distance"], distance.mean())
    terms = 100 / 2 * (0.3 * error.mean() + 0.7 * distance.mean())
    assert distance.min() > 0
    assert_close(loss, expected + terms)
    assert_close(metrics["null_loss"], terms)


def test_a_batch_with_more_rows_than_its_share_weighs_more(pipe):
    """So that the mean over batches is that over all images: one row of the expected half of four images weighs half."""
    held = tiny.make_trainer(beta=100.0, null_anchor=1.0, null_share=0.5)
    metrics = [held.tpo_loss(pipe.unet, *make_batch(pipe, empty))[1] for empty in (1, 2, 3)]
    for empty, found in zip((1, 2, 3), metrics, strict=True):
        assert_close(found["null_loss"], 100 / 2 * found["null/error"] * empty / 2)


def test_the_empty_prompt_is_held_while_preferences_are_trained():
    distances = {}
    for keep in (0.0, 1.0):
        torch.manual_seed(0)
        pipe = tiny.make_policy()
        trainer = tiny.make_trainer(beta=1000.0, anchor_weight=0.0, null_keep=keep, null_share=0.5)
        batches = [make_batch(pipe, 2, number) for number in range(12)]
        tiny.train(trainer, pipe.unet, batches if keep else [without_empty(*batch) for batch in batches], lr=1e-2)
        judge = tiny.make_trainer(null_keep=1.0, null_share=0.5)
        distances[keep] = judge.tpo_loss(pipe.unet, *make_batch(pipe, 2, 99))[1]["null/distance"].item()
    assert 0 < distances[1.0] < 0.5 * distances[0.0]


def test_an_anchor_alone_asks_no_reference_about_the_empty_prompt(pipe, monkeypatch):
    asked, trainer = [], tiny.make_trainer(null_anchor=1.0, null_share=0.5)
    original = TPOTrainer.reference_prediction

    def counted(self, denoiser, noised, cond):
        asked.append(len(noised.latents))
        return original(self, denoiser, noised, cond)

    monkeypatch.setattr(TPOTrainer, "reference_prediction", counted)
    assert "null/distance" not in trainer.tpo_loss(pipe.unet, *make_batch(pipe))[1]
    assert asked == [8]
    trainer.tpo = TPOConfig(null_keep=1.0, null_share=0.5)
    trainer.tpo_loss(pipe.unet, *make_batch(pipe))
    assert asked == [8, 10]


@pytest.mark.parametrize("loss_type", ["tdpo", "tkto"])
def test_what_is_known_of_the_reference_gives_the_same_loss(pipe, loss_type, monkeypatch):
    trainer = tiny.make_trainer(loss_type=loss_type, beta=100.0, null_keep=1.0, null_share=0.5)
    noised, cond, is_matched = make_batch(pipe)
    expected, _ = trainer.tpo_loss(pipe.unet, noised, cond, is_matched)
    prediction = trainer.reference_prediction(pipe.unet, noised, cond)
    errors = trainer.reference_error(pipe.unet, noised, cond)[:8]
    asked, original = [], TPOTrainer.reference_prediction

    def counted(self, denoiser, noised, cond):
        asked.append(len(noised.latents))
        return original(self, denoiser, noised, cond)

    monkeypatch.setattr(TPOTrainer, "reference_prediction", counted)
    for known in ({"ref_error": errors}, {"ref_empty": prediction[8:]}):
        assert_close(trainer.tpo_loss(pipe.unet, noised, cond, is_matched, **known)[0], expected)
    assert asked == [2, 8]
    both = {"ref_error": errors, "ref_empty": prediction[8:]}
    assert_close(trainer.tpo_loss(pipe.unet, noised, cond, is_matched, **both)[0], expected)
    assert asked == [2, 8]


def test_a_share_of_a_batch_is_right_in_the_mean_and_nearly_constant():
    numbers = [num_empty([Draw(0, row, n) for row in range(3)], 0.5) for n in range(400)]
    assert set(numbers) == {1, 2} and sum(numbers) / 400 == pytest.approx(1.5, abs=0.1)
    assert {num_empty([Draw(0, row, n) for row in range(8)], 0.25) for n in range(50)} == {2}
    assert {num_empty([Draw(0, 0, n)], 1.0) for n in range(50)} == {1}
    assert {num_empty([Draw(0, 0, n)], 0.0) for n in range(50)} == {0}


def test_lacking_rows_are_said(pipe):
    trainer = tiny.make_trainer(null_keep=1.0, null_share=0.5)
    with pytest.raises(UserError, match="need rows of the empty prompt, about 0.5 of 4 images"):
        trainer.tpo_loss(pipe.unet, *make_batch(pipe, empty=0))
    noised, cond, is_matched = make_batch(pipe)
    with pytest.raises(UserError, match="has 8 rows and noised has 10; .* and 2 of the empty prompt at the end"):
        trainer.tpo_loss(pipe.unet, noised, {name: value[:8] for name, value in cond.items()}, is_matched)


@pytest.mark.parametrize("name", ["null_anchor", "null_keep"])
def test_supervised_fine_tuning_has_another_way(name):
    with pytest.raises(UserError, match="proportion_empty_prompts"):
        TPOConfig("sft", **{name: 1.0})


@pytest.mark.parametrize(
    "flags", [{"null_share": 0.0}, {"null_share": 1.5}, {"null_keep": -1.0}, {"null_anchor": float("nan")}]
)
def test_ranges(flags):
    with pytest.raises(UserError, match=f"--{next(iter(flags))}"):
        TPOConfig(**flags)
