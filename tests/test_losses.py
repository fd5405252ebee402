"""The arithmetic of every loss, done by hand in the comments."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from diffusers_tpo import losses


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_denoising_error_is_a_float32_mean_per_row():
    prediction = tensor([[[1.0, 2.0]], [[0.0, 0.0]]], dtype=torch.bfloat16)
    target = tensor([[[0.0, 0.0]], [[3.0, 1.0]]])
    error = losses.denoising_error(prediction, target)
    assert error.dtype == torch.float32
    assert_close(error, tensor([2.5, 5.0]))  # (1 + 4) / 2 and (9 + 1) / 2


def test_implicit_reward_is_positive_where_the_policy_is_better():
    assert_close(losses.implicit_reward(tensor([0.25, 0.75]), tensor([0.5, 0.5])), tensor([0.25, -0.25]))


def test_at_the_reference_tdpo_is_log_2_and_tkto_one_half():
    zero = torch.zeros(3)
    assert_close(losses.tdpo_loss(zero, torch.zeros(2, 3), 5000.0), torch.full((3,), math.log(2)))
    assert_close(losses.tkto_loss(zero, tensor([True, False, True]), 0.0, 5000.0), torch.full((3,), 0.5))


def test_tdpo_by_hand():
    """beta/2 = 2. Pairs of image 0: 2 * (0.3 - 0.1) = 0.4 and 2 * (0.3 + 0.2) = 1; of image 1: 2 * (0 - 0.5) = -1 and 0."""
    loss = losses.tdpo_loss(tensor([0.3, 0.0]), tensor([[0.1, 0.5], [-0.2, 0.0]]), beta=4.0)
    first = (-math.log(sigmoid(0.4)) - math.log(sigmoid(1.0))) / 2
    second = (-math.log(sigmoid(-1.0)) - math.log(sigmoid(0.0))) / 2
    assert_close(loss, tensor([first, second]))


def test_tdpo_takes_the_mean_outside_the_logsigmoid():
    """Margins 2 and -2: -logsigmoid of their mean is log 2, the mean of -logsigmoid is 1.127."""
    loss = losses.tdpo_loss(tensor([0.0]), tensor([[-2.0], [2.0]]), beta=2.0)
    assert_close(loss, tensor([(math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2]))
    assert loss.item() > math.log(2) + 0.4


def test_tdpo_with_k_mismatched_prompts_is_the_mean_over_the_pairs():
    matched, mismatched = torch.randn(5), torch.randn(3, 5)
    pairs = torch.stack([losses.tdpo_loss(matched, row[None], 2.0) for row in mismatched])
    assert_close(losses.tdpo_loss(matched, mismatched, 2.0), pairs.mean(dim=0))


def test_tkto_by_hand():
    """beta = 2, baseline 0.1. Matched: 2 * (0.6 - 0.1) = 1; mismatched: -2 * (0.6 - 0.1) = -1; weights 3 and 5."""
    loss = losses.tkto_loss(tensor([0.6, 0.6]), tensor([True, False]), 0.1, 2.0, 3.0, 5.0)
    assert_close(loss, tensor([3 * (1 - sigmoid(1.0)), 5 * (1 - sigmoid(-1.0))]))


def test_tkto_raises_matched_and_lowers_mismatched_rewards():
    reward = torch.zeros(2, requires_grad=True)
    losses.tkto_loss(reward, tensor([True, False]), 0.0, 4.0).sum().backward()
    assert_close(reward.grad, tensor([-1.0, 1.0]))  # beta * sigmoid(0) * (1 - sigmoid(0)) = 4 / 4


def test_clip_stops_the_gradient_below_the_floor_only():
    """Floors are -0.1 * 2 = -0.2 for both rows."""
    reward = tensor([-0.3, -0.1], requires_grad=True)
    clipped = losses.clip_mismatched(reward, tensor([2.0, 2.0]), 0.1)
    assert_close(clipped.detach(), tensor([-0.2, -0.1]))
    clipped.sum().backward()
    assert_close(reward.grad, tensor([0.0, 1.0]))


def test_winner_preserving_scale_by_hand():
    """g_w = (2, 0), |g_w|^2 = 4. Products with g_l: 8 -> 4/8; 2 -> 4/2, at most 1; -6 -> 1; 0 -> 1. mu = 0.25 takes 3/4 of 4/8."""
    matched = tensor([[2.0, 0.0]]).expand(4, 2)
    mismatched = tensor([[4.0, 9.0], [1.0, 3.0], [-3.0, 1.0], [0.0, 1.0]])
    assert_close(losses.winner_preserving_scale(matched, mismatched, 0.0), tensor([0.5, 1.0, 1.0, 1.0]))
    assert_close(losses.winner_preserving_scale(matched[:1], mismatched[:1], 0.25), tensor([0.375]))


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_winner_preserving_scale_keeps_the_matched_error_from_growing(mu):
    """A small step along -(g_w - s g_l) lowers the matched error by at least mu |g_w|^2 per unit, however large g_l is."""
    torch.manual_seed(0)
    matched, noise = torch.randn(64, 3, 4, dtype=torch.float64), torch.randn(64, 3, 4, dtype=torch.float64)
    mismatched = 5 * matched + 3 * noise
    scale = losses.winner_preserving_scale(matched, mismatched, mu)
    assert ((scale >= 0) & (scale <= 1)).all() and not scale.requires_grad

    def change(scale):
        step = 1e-6
        moved = matched - step * (matched - scale.double()[:, None, None] * mismatched)
        return (moved.square() - matched.square()).flatten(1).sum(1) / (2 * step)

    energy = matched.square().flatten(1).sum(1)
    assert (change(scale) <= -mu * energy + 1e-3 * energy).all()
    assert (change(torch.ones(64)) > 0).any()  # without the scale it grows


def test_scale_gradient_changes_the_gradient_alone():
    value = tensor([3.0, 5.0], requires_grad=True)
    scaled = losses.scale_gradient(value, tensor([0.25, 0.0]))
    assert_close(scaled.detach(), tensor([3.0, 5.0]))
    scaled.sum().backward()
    assert_close(value.grad, tensor([0.25, 0.0]))
