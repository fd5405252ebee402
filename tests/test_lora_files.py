"""A LoRA file means the same to every reader: what was trained is what loads, all of it or none."""

import shutil

import pytest
import tiny
import tiny_families
import tiny_pixart_sana
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from diffusers_tpo.errors import UserError
from diffusers_tpo.families import FAMILIES, family_of
from diffusers_tpo.models.adapters import check_peft, save_lora, train_denoiser
from diffusers_tpo.models.loading import load_model, misfits
from diffusers_tpo.models.recipe import LoraShape
from diffusers_tpo.models.text_encoders import train_text_encoders


PROMPTS = ["cat", "two dogs"]
WITH_LORA = [name for name in tiny_families.MAKERS if name not in tiny_pixart_sana.NO_LORA]
WITH_TEXT = ("sd", "sdxl", "sd3", "flux", "schnell")
FILE = "pytorch_lora_weights.safetensors"


def move(modules) -> None:
    """A LoRA that has an effect."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in modules:
            for name, parameter in module.eval().named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.3)
                if "magnitude" in name:
                    parameter.mul_(1.3)


@torch.no_grad()
def predict(pipe) -> torch.Tensor:
    """What the denoiser says to latents under what the text encoders say."""
    family, side = tiny_families.short_family(pipe), tiny_families.call_flags(pipe)["height"]
    sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(2, 1)
    cond = family.encode_prompts(pipe, PROMPTS) | family.encode_sizes(sizes)
    latents = torch.randn(2, *tiny.LATENT, generator=torch.Generator().manual_seed(0))
    return family.predict(getattr(pipe, family.denoiser), latents, torch.tensor([300, 900]), cond)


def trained(name: str, folder, with_text: bool, **shape):
    """A pipeline with a LoRA, whose file lies in `folder`."""
    pipe = tiny_families.make_pipe(name)
    family, lora = family_of(pipe), LoraShape(rank=4, **shape)
    denoiser = getattr(pipe, family.denoiser)
    train_denoiser(denoiser, family, lora)
    text = train_text_encoders(pipe, family, lora, needs_reference=False).modules() if with_text else {}
    move([denoiser, *text.values()])
    save_lora(type(pipe), denoiser, family.denoiser, folder, text)
    return pipe


def cases() -> list:
    """(family, text encoders too, DoRA); the quick ones try every family, and both kinds of text encoders."""
    found = []
    for name in WITH_LORA:
        for with_text in (False, True) if name in WITH_TEXT else (False,):
            for use_dora in (False, True):
                is_quick = name in ("sd", "flux") if with_text else not use_dora
                label = "-".join([name, "text" if with_text else "denoiser", "dora" if use_dora else "lora"])
                marks = [] if is_quick else pytest.mark.slow
                found.append(pytest.param(name, with_text, use_dora, id=label, marks=marks))
    return found


@pytest.mark.parametrize(("name", "with_text", "use_dora"), cases())
@pytest.mark.parametrize("alpha", [pytest.param(None, marks=pytest.mark.slow), 8], ids=["alpha=rank", "alpha=2rank"])
def test_what_was_trained_is_what_the_stock_pipeline_loads(name, with_text, alpha, use_dora, tmp_path):
    """With the file's metadata, and for a reader that does not know it."""
    pipe = trained(name, tmp_path, with_text, alpha=alpha, use_dora=use_dora, dropout=0.5)
    stock = tiny_families.make_pipe(name)
    wanted, plain = predict(pipe), predict(stock)
    assert (wanted - plain).norm() > 5e-3 * plain.norm()
    for source in (tmp_path, load_file(tmp_path / FILE)):
        stock.load_lora_weights(source)
        assert_close(predict(stock), wanted, rtol=1e-4, atol=1e-5)
        stock.unload_lora_weights()


def test_text_encoders_that_can_be_trained_are_all_tried():
    with_text = [base for base, family in FAMILIES.items() if family.text_encoders]
    assert {type(tiny_families.make_pipe(name)) for name in WITH_TEXT} == set(with_text)


def test_a_published_lora_drops_nothing_at_random(tmp_path):
    """The stock pipeline loads adapters in training mode, where the dropout of the training would be at work."""
    trained("sd", tmp_path, True, dropout=0.5)
    stock = tiny.make_pipe()
    stock.load_lora_weights(tmp_path)
    assert torch.equal(predict(stock), predict(stock))


def changed(folder, change):
    """A copy of a LoRA file whose tensors are `change`d."""
    path = folder / FILE
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    (folder / "changed").mkdir(exist_ok=True)
    save_file(change(load_file(path)), folder / "changed" / FILE, metadata)
    return str(folder / "changed")


@pytest.mark.parametrize("with_text", [False, True], ids=["denoiser", "text"])
def test_a_lora_that_fits_only_in_part_is_refused(with_text, tmp_path, pipe_dir):
    trained("sd", tmp_path, with_text)
    whole = load_model(str(tmp_path), pipe_dir)
    assert whole.pipe.get_list_adapters().keys() == {"unet", *(["text_encoder"] if with_text else [])}

    def renamed(state):
        return {key.replace("up_blocks", "upper_blocks"): value for key, value in state.items()}

    def halved(state):
        return {key: value for key, value in state.items() if "up_blocks" not in key}

    def foreign(state):
        return state | {key.replace("unet.", "prior."): value + 1 for key, value in state.items()}

    for change in (renamed, halved, foreign):
        with pytest.raises(UserError, match="^--models names the LoRA .* fits? .*tiny.* only in part"):
            load_model(changed(tmp_path, change), pipe_dir)


def test_a_text_encoder_of_which_a_part_is_missing_is_refused(tmp_path, pipe_dir):
    trained("sd", tmp_path, True)

    def without_a_layer(state):
        return {key: value for key, value in state.items() if not ("text_encoder" in key and "layers.1" in key)}

    with pytest.raises(UserError, match="only in part"):
        load_model(changed(tmp_path, without_a_layer), pipe_dir)


def test_half_precision_loses_no_tensor_of_a_lora(tmp_path, pipe_dir):
    trained("sd", tmp_path, True, use_dora=True)
    assert load_model(str(tmp_path), pipe_dir, dtype=torch.bfloat16).pipe.get_list_adapters()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, tmp_path, pipe_dir):
    trained("sd", tmp_path, False)

    def broken(state):
        first = next(iter(state))
        return state | {first: torch.full_like(state[first], value)}

    with pytest.raises(UserError, match="^--models names .*, whose weight unet.* is not finite"):
        load_model(changed(tmp_path, broken), pipe_dir)
    pipe = tiny.make_pipe()
    with torch.no_grad():
        pipe.vae.decoder.conv_in.bias[0] = value
    pipe.save_pretrained(tmp_path / "pipe")
    with pytest.raises(UserError, match="whose weight vae.decoder.conv_in.bias is not finite"):
        load_model(str(tmp_path / "pipe"))


def test_layers_that_take_no_lora_are_named_with_the_reason():
    pipe = tiny.make_pipe()
    with pytest.raises(UserError, match="lora_layers norm1 of a UNet2DConditionModel take no LoRA .*is not supported"):
        train_denoiser(pipe.unet, family_of(pipe), LoraShape(layers=("norm1",)))


def test_a_peft_that_is_too_old_for_its_neighbours_is_named():
    check_peft()
    with pytest.raises(
        UserError, match="use_lora needs peft .* or newer with .*, and 0.1.0 is installed; update peft"
    ):
        check_peft("0.1.0")


def test_a_file_of_another_tool_is_taken_whole(tmp_path, pipe_dir):
    """Without metadata, and under other names for the same tensors."""
    pipe = trained("sd", tmp_path, False)
    old = {
        key.replace(".lora_A.weight", ".lora.down.weight").replace(".lora_B.weight", ".lora.up.weight"): value
        for key, value in load_file(tmp_path / FILE).items()
    }
    shutil.rmtree(tmp_path / "old", ignore_errors=True)
    (tmp_path / "old").mkdir()
    save_file(old, tmp_path / "old" / FILE)
    assert_close(predict(load_model(str(tmp_path / "old"), pipe_dir).pipe), predict(pipe), rtol=1e-4, atol=1e-5)
    assert isinstance(pipe, StableDiffusionPipeline)


def test_a_layer_whose_name_others_end_in_may_be_the_only_one_of_a_file():
    pipe = tiny_families.make_pipe("flux")
    layer = pipe.transformer.proj_out  # there is one in every single block, too
    shapes = {"lora_A": (2, layer.in_features), "lora_B": (layer.out_features, 2)}
    state = {f"transformer.proj_out.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    pipe.load_lora_weights(dict(state))
    assert misfits(pipe, state, says_layers=False) == (0, 0)
