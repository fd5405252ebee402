"""What someone who calls the library from a loop of their own gets wrong: each is one sentence, or simply works."""

import copy

import numpy as np
import pytest
import tiny
import tiny_families
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.errors import UserError
from diffusers_tpo.families import StableDiffusionXL


@pytest.fixture(scope="module")
def policy():
    return tiny.make_policy(b=0.3)


@pytest.fixture(scope="module")
def batch(policy):
    """Two images with one mismatched prompt each: noised rows, conditioning, which rows are matched."""
    return tiny.make_batch(policy)


def refused(*given, trainer=None, denoiser=None) -> str:
    with pytest.raises(UserError) as error:
        (trainer or TPOTrainer()).tpo_loss(denoiser, *given)
    return str(error.value)


@pytest.mark.parametrize("loss_type", ["tdpo", "tkto"])
def test_neither_adapters_nor_a_reference(batch, loss_type):
    message = refused(*batch, trainer=TPOTrainer(TPOConfig(loss_type)), denoiser=tiny.make_unet())
    assert message == (
        "there is no reference: the UNet2DConditionModel carries no adapters; add a LoRA with "
        "diffusers_tpo.models.adapters.add_lora, or give a frozen copy as TPOTrainer(reference=...)"
    )


def test_a_module_that_knows_no_adapters(batch):
    assert "there is no reference: the Linear carries no adapters" in refused(*batch, denoiser=torch.nn.Linear(1, 1))


def test_a_denoiser_that_peft_wraps_trains_as_one_that_diffusers_adapts(batch):
    config = {"r": 4, "lora_alpha": 4, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    adapted = tiny.make_pipe().unet
    adapted.add_adapter(LoraConfig(**config))
    wrapped = get_peft_model(tiny.make_pipe().unet, LoraConfig(**config))
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(adapted.parameters(), wrapped.parameters(), strict=True)
        if mine.requires_grad
    ]
    assert pairs and sum(parameter.requires_grad for parameter in wrapped.parameters()) == len(pairs)
    with torch.no_grad():
        for mine, theirs in pairs:
            theirs.copy_(mine.normal_(std=0.3))
    wrapped.train(), adapted.train()
    losses = [TPOTrainer().tpo_loss(module, *batch) for module in (wrapped, adapted)]
    assert losses[0][1]["reward/margin"] != 0
    for name, value in losses[0][1].items():
        assert_close(value, losses[1][1][name])
    losses[0][0].backward()
    losses[1][0].backward()
    for mine, theirs in pairs:
        assert theirs.requires_grad and theirs.grad is not None
        assert_close(mine.grad, theirs.grad)
    assert wrapped.training and all(module.training for module in wrapped.modules())


@pytest.mark.parametrize(
    "kind",
    [list, tuple, np.array, torch.tensor, lambda flags: torch.tensor(flags).int(), lambda flags: torch.tensor(flags).float()],
    ids=["list", "tuple", "array", "tensor", "integers", "floats"],
)  # fmt: skip
def test_labels_of_any_kind(policy, batch, kind):
    noised, cond, is_matched = batch
    loss, metrics = TPOTrainer().tpo_loss(policy.unet, noised, cond, kind(is_matched.tolist()))
    assert_close(loss, TPOTrainer().tpo_loss(policy.unet, noised, cond, is_matched)[0])
    assert "reward/matched" in metrics and "reward/mismatched" in metrics


@pytest.mark.parametrize("loss_type", ["tdpo", "tkto"])
def test_no_labels(policy, batch, loss_type):
    trainer = TPOTrainer(TPOConfig(loss_type))
    message = refused(*batch[:2], trainer=trainer, denoiser=policy.unet)
    assert message == f"is_matched must say which of the 4 rows are matched for {loss_type}; only sft does without"


def test_supervised_fine_tuning_needs_no_labels(policy, batch):
    assert TPOTrainer(TPOConfig("sft")).tpo_loss(policy.unet, *batch[:2])[0] > 0


def test_labels_of_another_number_of_rows(policy, batch):
    noised, cond, _ = batch
    message = refused(noised, cond, [True, False], denoiser=policy.unet)
    assert message == "is_matched must have one label for each of the 4 rows, got (2,)"
    assert "got (4, 1)" in refused(noised, cond, [[True], [True], [False], [False]], denoiser=policy.unet)


def test_conditioning_of_another_number_of_rows(policy, batch):
    noised, cond, is_matched = batch
    half = {name: value[:2] for name, value in cond.items()}
    message = refused(noised, half, is_matched, denoiser=policy.unet)
    assert message == (
        "encoder_hidden_states has 2 rows and noised has 4; both need one row for each image and prompt, as "
        "noised.repeat(1 + k) makes them"
    )


# Stable Diffusion XL


@pytest.fixture(scope="module")
def xl():
    """A LoRA on SDXL's UNet, and a batch for it."""
    pipe = tiny_families.make_pipe("sdxl")
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    family = StableDiffusionXL()
    size = pipe.unet.config.sample_size
    latents = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(0))
    noised = add_noise(training_scheduler(pipe.scheduler), latents, [Draw(0, 0, 0)]).repeat(2)
    with torch.no_grad():
        cond = family.encode_prompts(pipe, ["cat", "dog"])
    sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)
    return pipe.unet, noised, cond | family.encode_sizes(sizes)


def test_the_unet_of_xl_needs_no_family(xl):
    unet, noised, cond = xl
    expected = TPOTrainer(family=StableDiffusionXL()).tpo_loss(unet, noised, cond, [True, False])[0]
    assert_close(TPOTrainer().tpo_loss(unet, noised, cond, [True, False])[0], expected)


@pytest.mark.parametrize("loss_type", ["tdpo", "tkto", "sft"])
@pytest.mark.parametrize("with_copy", [False, True])
def test_the_nested_conditioning_of_diffusers(xl, loss_type, with_copy):
    unet, noised, cond = xl
    nested = {
        "encoder_hidden_states": cond["encoder_hidden_states"],
        "added_cond_kwargs": {name: cond[name] for name in ("text_embeds", "time_ids")},
    }
    tpo = TPOConfig(loss_type, tkto_baseline="shuffled" if loss_type == "tkto" else "batch_mean")
    trainer = TPOTrainer(tpo, reference=copy.deepcopy(unet) if with_copy else None)
    losses = [trainer.tpo_loss(unet, noised, given, [True, False])[0] for given in (cond, nested)]
    assert_close(*losses)
    assert_close(trainer.denoising_error(unet, noised, nested), trainer.denoising_error(unet, noised, cond))
    assert_close(trainer.reference_error(unet, noised, nested), trainer.reference_error(unet, noised, cond))


def test_the_unet_of_xl_without_what_it_wants_to_know(xl):
    unet, noised, cond = xl
    with pytest.raises(
        ValueError, match="requires the keyword argument `text_embeds` to be passed in `added_cond_kwargs`"
    ):
        TPOTrainer().tpo_loss(unet, noised, {"encoder_hidden_states": cond["encoder_hidden_states"]}, [True, False])


# What a trainer is made of


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"family": "sdxl"},
            "family must be an object such as diffusers_tpo.families.StableDiffusionXL(), got 'sdxl'",
        ),
        ({"family": StableDiffusionXL}, "got the class StableDiffusionXL"),
        ({"tpo": "tdpo"}, "tpo must be a TPOConfig, got 'tdpo'; as in TPOTrainer(TPOConfig(loss_type=...))"),
        ({"tpo": {"beta": 3}}, "tpo must be a TPOConfig, got {'beta': 3}"),
        ({"reference": "base"}, "reference must be a frozen copy of the denoiser, got a str"),
        ({"reference": []}, "reference must be a frozen copy of the denoiser, got a list"),
    ],
)
def test_a_trainer_of_other_things(given, sentence):
    with pytest.raises(UserError) as error:
        TPOTrainer(**given)
    assert sentence in str(error.value)


def test_a_pipeline_is_no_reference():
    with pytest.raises(UserError, match="got a StableDiffusionPipeline; give its unet or transformer"):
        TPOTrainer(reference=tiny.make_pipe())
