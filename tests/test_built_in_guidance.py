"""The figure of built-in guidance: a policy that is an exact mixture has it, and so do the advice and the report that speak of it."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from diffusers_tpo import training_scheduler
from diffusers_tpo.evaluation.built_in_guidance import GuidanceAdvice, measure_shifts
from diffusers_tpo.families import family_of
from diffusers_tpo.models.adapters import add_lora


PROMPTS = [["cat", "dog", "two cats"], ["long dog", "long cat"]]
PRINCIPLES = [["content", "attribute"], ["content"], ["content"]]  # of three pairs, of which two are measured


class Guided(nn.Module):
    """Predicts `f(c) + weight (f(c) - f(empty))`, and for the empty prompt `f(empty) + empty_weight (f(cat) - f(empty))`."""

    def __init__(self, unet, pipe, weight, empty_weight=0.0):
        super().__init__()
        self.unet, self.weight, self.empty_weight = unet, weight, empty_weight
        self.empty, self.cat = (
            family_of(pipe).encode_prompts(pipe, [text])["encoder_hidden_states"] for text in ("", "cat")
        )

    def forward(self, latents, timesteps, encoder_hidden_states, **kwargs):
        def ask(text):
            return self.unet(latents, timesteps, encoder_hidden_states=text.expand(len(latents), -1, -1)).sample

        own, empty, cat = map(ask, (encoder_hidden_states, self.empty, self.cat))
        is_empty = (encoder_hidden_states == self.empty).all(dim=(1, 2)).view(-1, 1, 1, 1)
        moved = torch.where(is_empty, self.empty_weight * (cat - empty), self.weight * (own - empty))
        return SimpleNamespace(sample=own + moved)


def model(pipe, policy, reference):
    bundle = SimpleNamespace(unet=policy, encode_prompt=pipe.encode_prompt, text_encoder=pipe.text_encoder)
    parts = {"pipe": bundle, "family": family_of(pipe), "scheduler": training_scheduler(pipe.scheduler)}
    return SimpleNamespace(**parts, reference=reference)


def measured(judged, prompts=PROMPTS, **options):
    latents, sizes = tiny.randn(len(prompts), *tiny.LATENT), torch.zeros(len(prompts), 6)
    options = {"strata": 2, "batch_size": 8} | options
    return measure_shifts(judged, latents, sizes, prompts, **options)


@pytest.fixture(scope="module")
def pipe():
    return tiny.make_pipe()


@pytest.mark.parametrize("weight", [0.4, -0.25])
def test_the_figure_of_an_exact_mixture_is_its_weight(pipe, weight):
    """By principle too, where a prompt of it was measured; the shift lies along the direction as a whole."""
    shifts = measured(model(pipe, Guided(pipe.unet, pipe, weight), pipe.unet))
    values = shifts.values(PRINCIPLES, 3)
    assert set(values) == {
        *("guidance/built_in", "guidance/of_empty", "guidance/share"),
        *("guidance/built_in/content", "guidance/built_in/attribute"),
    }
    for name, expected in {"built_in": weight, "built_in/content": weight, "share": 1, "of_empty": 0}.items():
        np.testing.assert_allclose(values[f"guidance/{name}"], [expected, expected, np.nan], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(values["guidance/built_in/attribute"], [weight, np.nan, np.nan], rtol=1e-3)


def test_what_the_empty_prompt_moved_is_measured_too(pipe):
    judged = model(pipe, Guided(pipe.unet, pipe, 0.4, empty_weight=-0.2), pipe.unet)
    values = measured(judged, PROMPTS[:1]).values(PRINCIPLES[:1], 1)
    assert values["guidance/of_empty"] == pytest.approx(-0.2, rel=1e-3)
    assert values["guidance/built_in"] == pytest.approx(0.4, rel=1e-3)


def test_a_lora_is_compared_with_itself_switched_off():
    pipe = tiny.make_pipe()
    base = copy.deepcopy(pipe.unet)
    add_lora(pipe.unet, ("to_q", "to_v"), rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    found = measured(model(pipe, pipe.unet, None)).products
    expected = measured(model(pipe, pipe.unet, base)).products
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-3, atol=1e-9)
    parts = measured(model(pipe, pipe.unet, None), batch_size=1).products
    torch.testing.assert_close(found, parts, equal_nan=True, rtol=1e-3, atol=1e-9)
    assert found[:, 1, 2].isnan().all() and found[:, :, :2].isfinite().all()


def test_a_model_that_is_its_own_reference_has_no_guidance_built_in(pipe):
    values = measured(model(pipe, pipe.unet, pipe.unet)).values(PRINCIPLES, 3)
    np.testing.assert_array_equal(values["guidance/built_in"], [0, 0, np.nan])
    assert np.isnan(values["guidance/share"]).all()


def test_the_advice_does_what_the_best_scale_does_for_the_reference(pipe):
    """f_ref(empty) + 3 d, by hand: from the model alone, and with the reference's empty prompt."""
    policy = Guided(pipe.unet, pipe, 0.5, empty_weight=-0.25)
    advice = GuidanceAdvice(built_in=0.5, of_empty=-0.25, share=1.0)
    told = (tiny.randn(1, *tiny.LATENT), torch.tensor([500]))
    with torch.no_grad():
        own, empty = (policy(*told, encoder_hidden_states=text).sample for text in (policy.cat, policy.empty))
        ref, ref_empty = (pipe.unet(*told, encoder_hidden_states=text).sample for text in (policy.cat, policy.empty))
    wanted = ref_empty + 3 * (ref - ref_empty)
    torch.testing.assert_close(empty + advice.scale(3.0) * (own - empty), wanted)
    torch.testing.assert_close(ref_empty + advice.scale(3.0, "reference") * (own - ref_empty), wanted)
    sentence = advice.sentence(3.0, is_measured=True)
    assert sentence.startswith(
        "The base is best at guidance 3: sample at about 1.9, or at about 2.0 if the base answers"
    )
    assert "100% of what training changed" in sentence
    from_zero = GuidanceAdvice(0.5, -0.25, 1.0, unguided=0.0)
    for way in ("model", "reference"):
        assert from_zero.scale(2.0, way) == pytest.approx(advice.scale(3.0, way) - 1)


def test_where_the_model_has_more_guidance_than_wanted_it_is_sampled_without():
    advice = GuidanceAdvice(built_in=1.0, of_empty=0.0, share=0.5)
    assert advice.scale(1.5) == 1
    assert advice.sentence(1.5, is_measured=False).startswith(
        "In place of guidance 1.5 with the base: sample at about 1.0, "
    )
    assert GuidanceAdvice.of({"guidance/built_in": np.ones(2)}) is None
