"""The objective on a real tiny denoiser: where it starts, that it falls, and what its numbers mean."""

import copy
import math

import pytest
import tiny
import tiny_families
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch.testing import assert_close

from diffusers_tpo import Draw, Noised, TPOConfig, TPOTrainer, add_noise
from diffusers_tpo.errors import UserError
from diffusers_tpo.families import StableDiffusionXL
from diffusers_tpo.losses import tdpo_loss
from diffusers_tpo.metrics import Layout
from diffusers_tpo.models.adapters import add_lora
from diffusers_tpo.training.alarms import CollapseAlarm


T, N = True, False
START = {"tdpo": math.log(2), "tkto": 0.5}


def lora_policy(**objective):
    pipe = tiny.make_policy()
    pipe.unet.train()
    return pipe, tiny.make_trainer(**objective)


def full_policy(**objective):
    pipe, trainer = tiny.make_pipe(), tiny.make_trainer(**objective)
    trainer.reference = copy.deepcopy(pipe.unet)
    pipe.unet.requires_grad_(True).train()
    return pipe, trainer


POLICIES = pytest.mark.parametrize("make", [lora_policy, full_policy], ids=["lora", "full"])


def moved_policy(**objective):
    """A LoRA policy away from its reference."""
    pipe = tiny.make_policy(b=0.3)
    return pipe, tiny.make_trainer(**({"anchor_weight": 0.0, "mismatched_clip": None} | objective))


@POLICIES
@pytest.mark.parametrize("loss_type", START)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_training_starts_at_the_reference(make, loss_type, prediction_type):
    """Policy and reference agree, so every margin is exactly 0."""
    pipe, trainer = make(loss_type=loss_type, anchor_weight=0.0)
    if prediction_type == "v_prediction":
        pipe.scheduler.register_to_config(prediction_type=prediction_type)
    loss, metrics = trainer.tpo_loss(pipe.unet, *tiny.make_batch(pipe, images=3, mismatched=2))
    assert_close(loss.item(), START[loss_type], rtol=0, atol=1e-7)
    assert metrics["reward/matched"] == metrics["reward/mismatched"] == metrics["reward/margin"] == 0
    assert metrics["clipped_fraction"] == 0


@POLICIES
@pytest.mark.parametrize("loss_type", START)
def test_the_loss_falls_and_rewards_part(make, loss_type):
    pipe, trainer = make(loss_type=loss_type, beta=500.0, anchor_weight=0.0, mismatched_clip=None)
    lr = 3e-5 if make is full_policy else 3e-3
    history = tiny.train(trainer, pipe.unet, [tiny.make_batch(pipe)] * 8, lr=lr)
    assert history[-1]["loss"] < 0.95 * history[0]["loss"]
    assert history[-1]["reward/margin"] > 0 and history[-1]["reward/accuracy"] == 1


def test_full_training_leaves_the_frozen_copy_alone():
    pipe, trainer = full_policy(beta=500.0)
    before = copy.deepcopy(trainer.reference.state_dict())
    tiny.train(trainer, pipe.unet, [tiny.make_batch(pipe)] * 2)
    assert all(torch.equal(value, before[name]) for name, value in trainer.reference.state_dict().items())
    assert all(not torch.equal(p, before[name]) for name, p in pipe.unet.named_parameters())


def test_a_half_precision_reference_gives_float32_errors_close_to_the_policys():
    pipe, trainer = full_policy()
    trainer.reference.to(torch.bfloat16)
    noised, cond, _ = tiny.make_batch(pipe)
    reference = trainer.reference_error(pipe.unet, noised, cond)
    assert reference.dtype == torch.float32 and not reference.requires_grad
    assert_close(reference, trainer.denoising_error(pipe.unet, noised, cond).detach(), rtol=0.05, atol=0.0)


def test_sft_is_the_weighted_mean_squared_error():
    pipe, trainer = lora_policy(loss_type="sft")
    pipe.scheduler = DDPMScheduler()
    draws = [Draw(0, row) for row in range(3)]
    noised = add_noise(pipe.scheduler, tiny.randn(3, *tiny.LATENT), draws, snr_gamma=5.0)
    cond = trainer.family.encode_prompts(pipe, ["a", "b", "c"])
    loss, metrics = trainer.tpo_loss(pipe.unet, noised, cond)
    prediction = pipe.unet(noised.latents, noised.timesteps, cond["encoder_hidden_states"]).sample
    error = F.mse_loss(prediction, noised.target, reduction="none").mean(dim=(1, 2, 3))
    assert_close(loss, (error * noised.weights).mean())
    assert_close(metrics["error/matched"], error.mean())
    assert not torch.allclose(loss, error.mean())


def test_tkto_takes_unpaired_rows_in_any_order():
    pipe, trainer = lora_policy(loss_type="tkto", beta=500.0, anchor_weight=0.0)
    noised, cond, _ = tiny.make_batch(pipe, images=5, mismatched=0)
    is_matched = torch.tensor([N, T, N, N, T])
    history = tiny.train(trainer, pipe.unet, [(noised, cond, is_matched)] * 8, lr=3e-3)
    assert history[0]["loss"] == pytest.approx(0.5)
    assert history[-1]["loss"] < 0.45
    assert history[-1]["reward/matched"] > 0 > history[-1]["reward/mismatched"]
    assert "reward/margin" not in history[0]  # there are no pairs


def rewards(pipe, trainer, noised, cond) -> torch.Tensor:
    error, reference = (
        trainer.denoising_error(pipe.unet, noised, cond),
        trainer.reference_error(pipe.unet, noised, cond),
    )
    return (reference - error).detach()


@pytest.mark.parametrize(
    ("baseline", "values", "labels", "expected"),
    [
        ("batch_mean", [0.5, 0.1, -0.3], [T, N, T], 0.1),  # (0.5 + 0.1 - 0.3) / 3
        ("batch_mean", [0.5, -0.9], [T, N], 0.0),  # -0.2, at least 0
        ("batch_mean", [0.5], [T], 0.5),
        ("batch_mean", [0.2, 0.4], [N, N], 0.3),
        ("class_mean", [0.5, 0.1, -0.3], [T, N, T], 0.1),  # ((0.5 - 0.3) / 2 + 0.1) / 2
        ("class_mean", [0.5, -0.9, -0.1, -0.2], [T, N, N, N], 0.05),  # (0.5 - 0.4) / 2
        ("class_mean", [0.5, -0.9], [T, N], -0.2),  # not clamped: it lies between the classes
        ("class_mean", [-0.5], [N], -0.5),
        ("class_mean", [0.2, 0.4], [T, T], 0.3),
    ],
)
def test_baselines_by_hand(baseline, values, labels, expected):
    trainer = tiny.make_trainer(loss_type="tkto", tkto_baseline=baseline)
    assert_close(
        trainer._baseline(torch.tensor(values), Layout.of(torch.tensor(labels), "cpu")), torch.tensor(expected)
    )


@pytest.mark.parametrize("baseline", ["batch_mean", "class_mean", "shuffled"])
def test_tkto_by_hand_whatever_classes_the_batch_has(baseline):
    """Loss of a row: 1 - sigmoid(+-beta (s - Q)), + for matched rows."""
    pipe, trainer = moved_policy(loss_type="tkto", tkto_baseline=baseline, beta=20.0)
    for labels in [[T], [N], [T, T, T], [N, N, N], [T, N, T]]:
        noised, cond, _ = tiny.make_batch(pipe, images=len(labels), mismatched=0)
        loss, metrics = trainer.tpo_loss(pipe.unet, noised, cond, torch.tensor(labels))
        reward, q = rewards(pipe, trainer, noised, cond), metrics["baseline"]
        sign = torch.tensor([1.0 if label else -1.0 for label in labels])
        assert_close(loss.detach(), (1 - torch.sigmoid(sign * 20.0 * (reward - q))).mean(), rtol=1e-4, atol=1e-5)
        if baseline == "batch_mean":
            assert_close(q, reward.mean().clamp(min=0))
        assert loss.requires_grad and math.isfinite(loss.item())


def test_the_shuffled_baseline_is_the_mean_reward_under_the_neighbours_prompts():
    pipe, trainer = moved_policy(loss_type="tkto", tkto_baseline="shuffled", beta=20.0)
    for number in range(20):  # until the mean is positive, so that the clamp does not hide it
        noised, cond, is_matched = tiny.make_batch(pipe, images=3, number=number)
        hidden = cond["encoder_hidden_states"][:3][[2, 0, 1]]
        images = tiny.make_batch(pipe, images=3, mismatched=0, number=number)[0]
        expected = rewards(pipe, trainer, images, {"encoder_hidden_states": hidden}).mean()
        baseline = trainer.tpo_loss(pipe.unet, noised, cond, is_matched)[1]["baseline"]
        assert_close(baseline, expected.clamp(min=0))
        if expected > 0:
            return
    pytest.fail("no batch has a positive mean reward")


def test_the_shuffled_baseline_of_a_single_image_is_zero():
    pipe, trainer = moved_policy(loss_type="tkto", tkto_baseline="shuffled", beta=20.0)
    assert trainer.tpo_loss(pipe.unet, *tiny.make_batch(pipe, images=1))[1]["baseline"] == 0


def test_three_mismatched_prompts_in_one_forward_are_the_mean_over_separate_pairs():
    pipe, trainer = moved_policy(beta=50.0)
    noised, cond, is_matched = tiny.make_batch(pipe, images=2, mismatched=3)
    together, metrics = trainer.tpo_loss(pipe.unet, noised, cond, is_matched)
    single = tiny.make_batch(pipe, images=2, mismatched=1)[0]
    hidden = cond["encoder_hidden_states"].unflatten(0, (4, 2))
    pairs = []
    for block in hidden[1:]:
        pair = {"encoder_hidden_states": torch.cat([hidden[0], block])}
        pairs.append(trainer.tpo_loss(pipe.unet, single, pair, torch.tensor([T, T, N, N])))
    assert_close(together, torch.stack([loss for loss, _ in pairs]).mean(), **tiny.FLOAT_TOLERANCE)
    margins = torch.stack([metrics["reward/margin"] for _, metrics in pairs])
    assert_close(metrics["reward/margin"], margins.mean(), rtol=1e-3, atol=1e-5)
    assert len(set(margins.tolist())) == 3


def test_rows_that_are_not_in_blocks_are_refused():
    pipe, trainer = lora_policy()
    for labels in [[T, N, T, N], [N, N, T, T], [T, T, T, T], [N, N], [T, T, N]]:
        noised, cond, _ = tiny.make_batch(pipe, images=len(labels), mismatched=0)
        with pytest.raises(ValueError, match="one block of B matched rows and K >= 1 blocks of B mismatched rows"):
            trainer.tpo_loss(pipe.unet, noised, cond, torch.tensor(labels))


def test_the_metrics_by_hand():
    pipe, trainer = moved_policy(beta=50.0)
    noised, cond, is_matched = tiny.make_batch(pipe, images=3)
    loss, metrics = trainer.tpo_loss(pipe.unet, noised, cond, is_matched)
    reward = rewards(pipe, trainer, noised, cond)
    margin = reward[:3] - reward[3:]
    assert_close(loss.detach(), tdpo_loss(reward[:3], reward[None, 3:], 50.0).mean(), **tiny.FLOAT_TOLERANCE)
    assert_close(metrics["reward/matched"], reward[:3].mean())
    assert_close(metrics["reward/mismatched"], reward[3:].mean())
    assert_close(metrics["reward/margin"], margin.mean())
    assert metrics["reward/accuracy"].item() == pytest.approx((margin > 0).float().mean().item())
    reference = trainer.reference_error(pipe.unet, noised, cond)
    assert_close(metrics["reward/matched_relative"], reward[:3].mean() / reference[:3].mean())
    assert_close(metrics["loss"], loss.detach())
    assert not any(value.requires_grad for value in metrics.values())


def test_the_anchor_adds_the_matched_error():
    """anchor_weight 0.1 and beta 50 add 0.1 * 50 / 2 = 2.5 times the matched error."""
    batch = tiny.make_batch(tiny.make_pipe())
    pipe, trainer = moved_policy(beta=50.0)
    plain, _ = trainer.tpo_loss(pipe.unet, *batch)
    trainer.tpo = TPOConfig(beta=50.0, mismatched_clip=None, anchor_weight=0.1)
    loss, metrics = trainer.tpo_loss(pipe.unet, *batch)
    assert_close(metrics["anchor"], 2.5 * metrics["error/matched"])
    assert_close(metrics["preference_loss"], plain.detach())
    assert_close(loss, plain + 2.5 * metrics["error/matched"])


def test_clipping_bounds_the_mismatched_reward_and_is_logged():
    """Clipped at a rise of 1e-6, every loser that got worse counts as lost by nothing."""
    pipe, trainer = moved_policy(beta=50.0, mismatched_clip=1e-6)
    noised, cond, is_matched = tiny.make_batch(pipe, images=4, number=5)
    loss, metrics = trainer.tpo_loss(pipe.unet, noised, cond, is_matched)
    reward = rewards(pipe, trainer, noised, cond)
    floor = -1e-6 * trainer.reference_error(pipe.unet, noised, cond)[4:]
    assert 0 < metrics["clipped_fraction"].item() < 1
    assert metrics["clipped_fraction"].item() == (reward[4:] < floor).float().mean().item()
    clipped = torch.maximum(reward[4:], floor)
    assert_close(loss.detach(), tdpo_loss(reward[:4], clipped[None], 50.0).mean(), **tiny.FLOAT_TOLERANCE)


def test_the_winner_preserving_scale_changes_the_gradient_and_not_the_loss():
    gradients, losses = [], []
    for mu in (None, 0.0, 1.0):
        pipe, trainer = moved_policy(beta=50.0, winner_preserving_mu=mu)
        loss, metrics = trainer.tpo_loss(pipe.unet, *tiny.make_batch(pipe))
        loss.backward()
        assert ("winner_preserving_scale" in metrics) == (mu is not None)
        losses.append(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in pipe.unet.parameters() if p.requires_grad]))
    assert_close(losses[0], losses[1])
    assert 0 <= metrics["winner_preserving_scale"] < 0.05  # mu = 1 leaves nothing where both residuals agree
    assert not torch.allclose(gradients[0], gradients[2]) and not torch.allclose(gradients[1], gradients[2])


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "loss_type": ["dpo", "SFT"],
        "tkto_baseline": ["mean"],
        "beta": [0.0, -1.0, math.nan],
        "mismatched_clip": [0.0, -0.1, math.nan],
        "anchor_weight": [-0.1, math.nan],
        "winner_preserving_mu": [-0.1, 1.5, math.nan],
        "matched_weight": [-1.0],
        "mismatched_weight": [-1.0],
    }.items(),
)
def test_a_wrong_value_is_a_user_error_that_names_the_argument(name, values):
    for value in values:
        with pytest.raises(UserError, match=rf"^--{name} .*got.*{value}"):
            TPOConfig(**{name: value})


def test_the_collapse_alarm_needs_its_steps_in_a_row_and_goes_off_once():
    alarm = CollapseAlarm(bound=0.2, patience=3)
    rewards = [-0.3, -0.3, -0.1, -0.3, -0.3, -0.3, -0.3, -0.3]
    assert [alarm.update(reward) for reward in rewards] == [False] * 5 + [True] + [False] * 2


def test_a_patience_of_zero_switches_the_collapse_alarm_off():
    alarm = CollapseAlarm(bound=0.2, patience=0)
    assert not any(alarm.update(reward) for reward in (0.0, -0.3, -0.3))


def test_it_drops_into_an_ordinary_training_loop():
    """What a user changes in a diffusers script: three lines that set it up, and the loss."""
    pipe = tiny.make_policy(rank=4)
    unet, vae, noise_scheduler = pipe.unet, pipe.vae, DDPMScheduler.from_config(pipe.scheduler.config)
    images = torch.rand(6, 3, tiny.RESOLUTION, tiny.RESOLUTION, generator=torch.Generator().manual_seed(0)) * 2 - 1
    captions, wrong = [f"cat {i}" for i in range(6)], [f"dog {i}" for i in range(6)]
    trainer = TPOTrainer()
    trainer.tpo = TPOConfig(beta=500.0, anchor_weight=0.0)

    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-2)
    unet.train()
    losses = []
    for epoch in range(12):
        for rows in torch.arange(6).split(3):
            with torch.no_grad():
                latents = vae.encode(images[rows]).latent_dist.mode() * vae.config.scaling_factor
                prompts = [captions[row] for row in rows] + [wrong[row] for row in rows]
                cond = trainer.family.encode_prompts(pipe, prompts)
            noised = add_noise(noise_scheduler, latents, [Draw(0, int(row), epoch) for row in rows])
            is_matched = torch.arange(len(prompts)) < len(rows)
            loss, _ = trainer.tpo_loss(unet, noised.repeat(2), cond, is_matched)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2))
    assert sum(losses[-4:]) / 4 < 0.95 * math.log(2)


@pytest.mark.parametrize("loss_type", ["tdpo", "tkto"])
def test_the_reference_is_told_what_it_is_given(loss_type):
    """Where the text encoders are trained, the reference's errors are those with the frozen encoders' conditioning."""
    pipe = tiny.make_policy()
    trainer = tiny.make_trainer(loss_type=loss_type, beta=500, anchor_weight=0.0, tkto_baseline="shuffled")
    noised, cond, is_matched = tiny.make_batch(pipe, images=3)
    other = {name: value + 0.5 for name, value in cond.items()}
    _, metrics = trainer.tpo_loss(pipe.unet, noised, cond, is_matched, other)
    reward = trainer.reference_error(pipe.unet, noised, other) - trainer.denoising_error(pipe.unet, noised, cond)
    assert metrics["reward/matched"].item() == pytest.approx(reward[is_matched].mean().item(), abs=1e-6)
    assert abs(metrics["reward/matched"].item()) > 1e-4
    if loss_type == "tkto":
        swapped = {name: value[:3].roll(1, 0) for name, value in other.items()}
        images = Noised(noised.latents[:3], noised.timesteps[:3], noised.target[:3])
        policy = {name: value[:3].roll(1, 0) for name, value in cond.items()}
        reward = trainer.reference_error(pipe.unet, images, swapped) - trainer.denoising_error(
            pipe.unet, images, policy
        )
        assert metrics["baseline"].item() == pytest.approx(max(0.0, reward.mean().item()), abs=1e-6)


def test_trainers_share_nothing():
    one, other = TPOTrainer(), TPOTrainer()
    one.tpo.beta = 7.0
    assert other.tpo.beta == TPOConfig().beta and TPOTrainer().tpo.beta == TPOConfig().beta
    assert not {"tpo", "family", "reference"} & vars(TPOTrainer).keys()


class Loop:
    """Somebody else's trainer, with a constructor of its own."""

    def __init__(self, denoiser, rate: float = 1.0):
        self.denoiser, self.rate = denoiser, rate

    def loss(self, *batch):
        raise NotImplementedError


class MixedIn(TPOTrainer, Loop):
    def loss(self, *batch):
        return self.tpo_loss(self.denoiser, *batch)


class Derived(TPOTrainer):
    def __init__(self, denoiser):
        super().__init__(TPOConfig(beta=300.0))
        self.denoiser = denoiser

    def tdpo_loss(self, reward, rows):
        return 2 * super().tdpo_loss(reward, rows)


def test_it_is_a_mixin_and_a_base_class():
    pipe = tiny.make_policy(b=0.1)
    batch, objective = tiny.make_batch(pipe), TPOConfig(beta=300.0)
    expected = TPOTrainer(objective).tpo_loss(pipe.unet, *batch)[1]
    mixed = MixedIn(tpo=objective, denoiser=pipe.unet, rate=0.5)
    assert mixed.rate == 0.5 and mixed.loss(*batch)[1]["loss"] == expected["loss"]
    derived = Derived(pipe.unet)
    metrics = derived.tpo_loss(pipe.unet, *batch)[1]
    assert metrics["preference_loss"] == 2 * expected["preference_loss"]


def test_without_a_family_it_calls_the_unet_of_stable_diffusion_xl_too():
    pipe = tiny_families.make_pipe("sdxl")
    add_lora(pipe.unet, ("to_q", "to_k"), rank=2)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noised = Noised(noise, torch.tensor([3, 500]), noise + 1).repeat(2)
    with torch.no_grad():
        cond = StableDiffusionXL().encode_prompts(pipe, ["cat", "red dog", "dog", "blue dog"])
    cond |= StableDiffusionXL().encode_sizes(torch.full((4, 6), 16.0))
    is_matched = torch.tensor([True, True, False, False])
    loss, metrics = TPOTrainer(TPOConfig(beta=100.0, anchor_weight=0.0)).tpo_loss(pipe.unet, noised, cond, is_matched)
    assert loss.item() == pytest.approx(math.log(2)) and metrics["reward/margin"] == 0
    loss.backward()
    assert all(p.grad is not None for p in pipe.unet.parameters() if p.requires_grad)
