"""The losses of Text Preference Optimization: pure functions of numbers per (image, prompt) row.

They know nothing of models, noise or data. The mean over rows is taken by the caller.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def denoising_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared denoising error of each row, in float32.

    Args:
        prediction: output of the denoiser, `(N, ...)`.
        target: what it should be (noise, velocity or flow), `(N, ...)`.

    Returns:
        `(N,)`.
    """
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)


def implicit_reward(error: Tensor, ref_error: Tensor) -> Tensor:
    """How much better the policy denoises a row than the reference does: `ref_error - error`, any shape."""
    return ref_error - error


def tdpo_loss(matched: Tensor, mismatched: Tensor, beta: float) -> Tensor:
    """TDPO: direct preference optimisation over two prompts of one image.

    From https://huggingface.co/papers/2509.25771, with beta in the convention of Diffusion-DPO
    (https://huggingface.co/papers/2311.12908, equation 14): mean-reduced errors and a factor of one half.

    Args:
        matched: rewards of the matched prompts, `(B,)`.
        mismatched: rewards of the `K` mismatched prompts of the same images, `(K, B)`.
        beta: strength of the pull to the reference.

    Returns:
        `(B,)`, the mean over the `K` pairs; log 2 where policy and reference agree.
    """
    return -F.logsigmoid(beta / 2 * (matched - mismatched)).mean(dim=0)


def tkto_loss(
    reward: Tensor,
    is_matched: Tensor,
    baseline: Tensor | float,
    beta: float,
    matched_weight: float = 1.0,
    mismatched_weight: float = 1.0,
) -> Tensor:
    """TKTO: each row is judged on its own against a reference point; rows need not come in pairs.

    From https://huggingface.co/papers/2509.25771, with beta in the convention of Diffusion-KTO
    (https://huggingface.co/papers/2404.04465): no factor of one half.

    Args:
        reward: `(N,)`.
        is_matched: `(N,)`, boolean.
        baseline: the reference point, a number without gradient; see [`TPOConfig`].
        beta: strength of the pull to the reference.
        matched_weight, mismatched_weight: weights of the two classes.

    Returns:
        `(N,)`; half the class weight where reward and baseline agree.
    """
    sign = torch.where(is_matched, 1.0, -1.0)
    weight = torch.where(is_matched, matched_weight, mismatched_weight)
    return weight * torch.sigmoid(-sign * beta * (reward - baseline))


def clip_mismatched(reward: Tensor, ref_error: Tensor, clip: float) -> Tensor:
    """Stops pushing a mismatched prompt once its error exceeds the reference's by the share `clip`.

    The paper clips "the negative-sample term" but does not print its rule; this relative rule is ours. A relative bound
    means the same at every timestep, where errors differ by orders of magnitude.

    Args:
        reward: rewards of mismatched prompts, any shape.
        ref_error: their reference errors, same shape.
        clip: 0.1 lets the error rise to 110 % of the reference's.

    Returns:
        `max(reward, -clip * ref_error)`, without gradient where it is clipped.
    """
    floor = -clip * ref_error
    return torch.where(reward < floor, floor, reward)


def winner_preserving_scale(residual_matched: Tensor, residual_mismatched: Tensor, mu: float) -> Tensor:
    """Scale of the mismatched gradient under which, to first order, the matched error does not grow.

    From Diffusion-SDPO, https://huggingface.co/papers/2511.03317, taken per row because both residuals belong to one image.
    With the output-space gradients `g = prediction - target`, the step `-(g_w - scale * g_l)` changes the matched error by
    `-|g_w|^2 + scale * (g_l . g_w)`, which stays at or below `-mu |g_w|^2`.

    Args:
        residual_matched: `g_w`, `(B, ...)`.
        residual_mismatched: `g_l`, `(B, ...)`.
        mu: share of the matched descent that must remain, in [0, 1].

    Returns:
        `(B,)` in [0, 1], without gradient.
    """
    with torch.no_grad():
        matched, mismatched = residual_matched.float().flatten(1), residual_mismatched.float().flatten(1)
        product = (mismatched * matched).sum(dim=1)
        scale = (1 - mu) * matched.square().sum(dim=1) / product.clamp(min=torch.finfo(torch.float32).tiny)
        return torch.where(product > 0, scale.clamp(0, 1), torch.ones_like(scale))


def scale_gradient(value: Tensor, scale: Tensor) -> Tensor:
    """`value` itself, with its gradient multiplied by `scale`."""
    return scale * value + (1 - scale) * value.detach()
