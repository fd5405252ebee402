"""LoRA: what is trained, what stays, and the trap that PEFT's switching off also clears `requires_grad`."""

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from torch.testing import assert_close

from diffusers_tpo.errors import UserError
from diffusers_tpo.models.adapters import adapters_off, add_lora, load_lora_state, lora_state, save_lora


def predict(pipe, denoiser, number: int = 0) -> torch.Tensor:
    noised, cond, _ = tiny.make_batch(pipe, number=number)
    return tiny.TPOTrainer().family.predict(denoiser, noised.latents, noised.timesteps, cond)


def flags(denoiser) -> tuple[dict, dict]:
    return (
        {name: parameter.requires_grad for name, parameter in denoiser.named_parameters()},
        {name: module.training for name, module in denoiser.named_modules()},
    )


def test_only_float32_lora_weights_are_trainable():
    pipe = tiny.make_pipe()
    pipe.unet.to(torch.bfloat16)
    add_lora(pipe.unet, ("to_q", "to_v"), rank=2)
    trainable = {name: p.dtype for name, p in pipe.unet.named_parameters() if p.requires_grad}
    assert trainable and set(trainable.values()) == {torch.float32}
    assert all("lora_" in name and (".to_q." in name or ".to_v." in name) for name in trainable)


def test_adapters_off_gives_the_bare_denoiser_and_restores_everything():
    pipe = tiny.make_policy(b=0.3)
    pipe.unet.train()
    pipe.unet.conv_in.eval()  # a mixture of modes must come back as a mixture
    next(value for name, value in pipe.unet.named_parameters() if "lora_A" in name).requires_grad_(False)
    before, policy = flags(pipe.unet), predict(pipe, pipe.unet)
    with adapters_off(pipe.unet) as bare:
        assert not any(module.training for module in bare.modules())
        reference = predict(pipe, bare)
    assert flags(pipe.unet) == before
    assert_close(predict(pipe, pipe.unet), policy)
    assert_close(reference, predict(pipe, tiny.make_pipe().unet))
    assert (reference - policy).abs().max() > 1e-3


def test_adapters_off_restores_after_an_exception():
    pipe = tiny.make_policy(b=0.3)
    pipe.unet.train()
    before, policy = flags(pipe.unet), predict(pipe, pipe.unet)
    with pytest.raises(RuntimeError, match="out of memory"), adapters_off(pipe.unet):
        raise RuntimeError("out of memory")
    assert flags(pipe.unet) == before
    assert_close(predict(pipe, pipe.unet), policy)


def test_the_policy_has_a_gradient_after_the_reference_pass():
    pipe = tiny.make_policy(b=0.1)
    trainer = tiny.make_trainer(beta=100.0)
    loss, _ = trainer.tpo_loss(pipe.unet, *tiny.make_batch(pipe))
    loss.backward()
    gradients = [p.grad for p in pipe.unet.parameters() if p.requires_grad]
    assert gradients and all(g is not None and g.abs().max() > 0 for g in gradients)


def test_the_reference_sees_neither_dropout_nor_train_mode():
    pipe = tiny.make_policy(b=0.3, dropout=0.5)
    pipe.unet.train()
    trainer, (noised, cond, _) = tiny.make_trainer(), tiny.make_batch(pipe)
    reference = trainer.reference_error(pipe.unet, noised, cond)
    assert torch.equal(reference, trainer.reference_error(pipe.unet, noised, cond))
    assert_close(reference, trainer.denoising_error(tiny.make_pipe().unet, noised, cond))
    with torch.no_grad():  # while the policy sees dropout
        assert not torch.equal(*(trainer.denoising_error(pipe.unet, noised, cond) for _ in range(2)))


def test_training_moves_every_trainable_parameter_and_no_base_weight():
    pipe = tiny.make_policy()
    pipe.unet.train()
    start = {name: p.detach().clone() for name, p in pipe.unet.named_parameters()}
    tiny.train(tiny.make_trainer(beta=500.0), pipe.unet, [tiny.make_batch(pipe, number=n) for n in range(3)])
    for name, parameter in pipe.unet.named_parameters():
        assert torch.equal(parameter, start[name]) != parameter.requires_grad, name
    base = tiny.make_pipe().unet.state_dict()
    trained = {name.replace(".base_layer", ""): value for name, value in pipe.unet.state_dict().items()}
    assert all(torch.equal(trained[name], value) for name, value in base.items())


def test_a_saved_lora_loads_into_a_stock_pipeline(tmp_path, pipe_dir):
    pipe = tiny.make_policy(b=0.3, rank=3)
    save_lora(type(pipe), pipe.unet, "unet", tmp_path)
    stock = StableDiffusionPipeline.from_pretrained(pipe_dir)
    stock.set_progress_bar_config(disable=True)

    def render():
        generator = torch.Generator().manual_seed(0)
        return stock("cat", num_inference_steps=2, generator=generator, output_type="np").images

    with torch.no_grad():
        plain, image = predict(stock, stock.unet), render()
        stock.load_lora_weights(tmp_path)
        loaded, changed = predict(stock, stock.unet), render()
        assert_close(loaded, predict(pipe, pipe.unet))
    assert (loaded - plain).abs().max() > 1e-3
    assert np.abs(changed - image).max() > 1e-3


def test_a_saved_lora_keeps_its_scale(tmp_path, pipe_dir):
    """alpha = 8 and rank = 2 scale the update by 4; a loader that lost alpha would scale it by 1."""
    pipe = tiny.make_pipe()
    add_lora(pipe.unet, ("to_q", "to_k", "to_v"), rank=2, alpha=8)
    with torch.no_grad():
        for name, parameter in pipe.unet.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.2)
        save_lora(type(pipe), pipe.unet, "unet", tmp_path)
        stock = StableDiffusionPipeline.from_pretrained(pipe_dir)
        stock.load_lora_weights(tmp_path)
        assert_close(predict(stock, stock.unet), predict(pipe, pipe.unet))


def test_lora_state_goes_from_one_denoiser_to_another():
    pipe, other = tiny.make_policy(b=0.3), tiny.make_policy()
    load_lora_state(other.unet, lora_state(pipe.unet))
    with torch.no_grad():
        assert torch.equal(predict(pipe, pipe.unet), predict(other, other.unet))


def test_lora_state_of_another_rank_or_of_other_layers_is_a_user_error():
    pipe = tiny.make_policy(rank=4)
    with pytest.raises(UserError, match="use the same --rank and --lora_layers"):
        load_lora_state(pipe.unet, lora_state(tiny.make_policy(rank=2).unet))
    other = tiny.make_pipe()
    add_lora(other.unet, ("to_q",), rank=4)
    with pytest.raises(UserError, match="use the same --rank and --lora_layers"):
        load_lora_state(pipe.unet, lora_state(other.unet))


def test_layers_that_do_not_exist_are_a_user_error():
    with pytest.raises(UserError, match="lora_layers to_nowhere, to_nothing name no layer of UNet2DConditionModel"):
        add_lora(tiny.make_pipe().unet, ("to_nowhere", "to_nothing"))


def test_a_rank_below_one_is_a_user_error_about_the_rank():
    with pytest.raises(UserError, match="rank must be at least 1, got 0"):
        add_lora(tiny.make_pipe().unet, ("to_q",), rank=0)
