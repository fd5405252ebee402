"""A LoRA in another program's format: read by that program's rules, it changes the model in the same way."""

import re

import pytest
import tiny
import tiny_families
import torch
from conftest import SCRIPT, run_program
from diffusers import FluxPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from test_lora_files import FILE, predict, trained
from torch.testing import assert_close

from diffusers_tpo.errors import UserError
from diffusers_tpo.families import FAMILIES
from diffusers_tpo.models.exports import COMFYUI_LAYERS, export, sgm_name, write_export


UNETS = ("sd", "sdxl")
TRANSFORMERS = ("sd3", "flux", "flux2", "klein", "qwen_image", "z_image")


def exported(name: str, folder, format: str, with_text: bool = False, **shape):
    """A pipeline with a LoRA, and its tensors in a format."""
    pipe = trained(name, folder, with_text, **shape)
    per_block = pipe.unet.config.layers_per_block if name in UNETS else 2
    write_export(folder / FILE, folder / "other.safetensors", format, type(pipe), per_block)
    return pipe, load_file(folder / "other.safetensors")


def apply(pipe, name_of, state: dict) -> set[str]:
    """Adds each layer's update to its weight, as programs without adapters do; gives the keys that were used.

    Args:
        name_of: what a file calls a layer of a part of the pipeline: its name, and those of its matrices.
    """
    used = set()
    for part in ("unet", "transformer", "text_encoder", "text_encoder_2"):
        for path, module in getattr(pipe, part, torch.nn.Module()).named_modules() if hasattr(pipe, part) else ():
            name, up, down = name_of(part, path)
            if f"{name}.{up}" not in state:
                continue
            keys = [f"{name}.{key}" for key in (up, down, "alpha")]
            matrix_up, matrix_down, alpha = (state[key] for key in keys)
            used.update(keys)
            scale = alpha.item() / len(matrix_down)
            with torch.no_grad():
                module.weight += (scale * matrix_up @ matrix_down).reshape(module.weight.shape)
    return used


def in_files(part: str, path: str) -> str:
    """The path of a module as files have it: transformers 5 has dropped a step of CLIP's, and every file keeps it."""
    return f"text_model.{path}" if part.startswith("text") and path.startswith("encoder.") else path


def as_kohya(part: str, path: str) -> tuple[str, str, str]:
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}.get(part, "none")
    return f"{prefix}_{in_files(part, path).replace('.', '_')}", "lora_up.weight", "lora_down.weight"


def as_diffusers(part: str, path: str) -> tuple[str, str, str]:
    return f"{part}.{in_files(part, path)}", "lora_B.weight", "lora_A.weight"


@pytest.mark.parametrize("format", ["kohya", "comfyui"])
@pytest.mark.parametrize(("name", "with_text"), [("sd", True), ("sdxl", False)])
@pytest.mark.parametrize("alpha", [None, 8])
def test_a_unet_in_kohyas_format_is_read_back_by_diffusers(name, with_text, alpha, format, tmp_path):
    pipe, state = exported(name, tmp_path, format, with_text, alpha=alpha)
    assert all(
        re.fullmatch(r"lora_(unet|te_text_model_encoder_layers)_\w+\.(lora_up\.weight|lora_down\.weight|alpha)", key)
        for key in state
    )
    stock = tiny_families.make_pipe(name)
    plain = predict(stock)
    stock.load_lora_weights(dict(state))
    assert (predict(pipe) - plain).norm() > 5e-3 * plain.norm()
    assert_close(predict(stock), predict(pipe), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [None, ("to_q", "ff.net.2", "proj_in", "conv1", "time_emb_proj", "linear_1")])
def test_a_program_that_merges_kohyas_names_into_the_unet_gets_the_same_model(layers, tmp_path):
    """Each layer's path with underscores, after a prefix for its part: that is the whole rule, of Stable Diffusion 1 and 2."""
    pipe, state = exported("sd", tmp_path, "kohya", layers is None, alpha=8, layers=layers)
    state = {
        key: value.flatten(1) if value.dim() == 4 and value.shape[2:] == (1, 1) else value
        for key, value in state.items()
    }
    if layers is None:
        merged = tiny.make_pipe()
        assert apply(merged, as_kohya, state) == state.keys()
        assert_close(predict(merged), predict(pipe), rtol=1e-4, atol=1e-5)
    stock = tiny.make_pipe()
    stock.load_lora_weights(load_file(tmp_path / "other.safetensors"))
    assert_close(predict(stock), predict(pipe), rtol=1e-4, atol=1e-5)


def test_the_blocks_of_xl_are_numbered_as_kohya_numbers_them():
    """Names that files on the Hub have."""
    known = {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks.4.1.transformer_blocks.0.attn1.to_q",
        "down_blocks.2.attentions.1.proj_in": "input_blocks.8.1.proj_in",
        "mid_block.attentions.0.transformer_blocks.9.ff.net.2": "middle_block.1.transformer_blocks.9.ff.net.2",
        "mid_block.resnets.1.conv1": "middle_block.2.in_layers.2",
        "up_blocks.0.attentions.2.proj_out": "output_blocks.2.1.proj_out",
        "up_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0": "output_blocks.3.1.transformer_blocks.1.attn2.to_out.0",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
        "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
        "up_blocks.2.resnets.2.time_emb_proj": "output_blocks.8.0.emb_layers.1",
        "conv_in": "input_blocks.0.0",
    }
    for ours, theirs in known.items():
        assert sgm_name(f"{ours}.lora_A.weight", 2) == f"{theirs}.lora_A.weight"


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_what_comfyui_adds_to_the_weights_of_a_transformer_is_what_was_trained(name, tmp_path):
    pipe, state = exported(name, tmp_path, "comfyui", with_text=name in ("sd3", "flux"), alpha=8)
    merged = tiny_families.make_pipe(name)
    assert apply(merged, as_diffusers, state) == state.keys()
    assert_close(predict(merged), predict(pipe), rtol=1e-4, atol=1e-5)
    assert sum(key.endswith(".alpha") for key in state) * 3 == len(state)


@pytest.mark.parametrize(
    ("name", "format", "sentence"),
    [
        (
            "flux",
            "kohya",
            "--export kohya of a LoRA of FluxPipeline is not known here, only of StableDiffusionPipeline",
        ),
        ("sana", "comfyui", "--export comfyui of a LoRA of SanaPipeline is not known here"),
    ],
)
def test_a_format_without_a_mapping_is_refused(name, format, sentence, tmp_path):
    with pytest.raises(UserError, match=f"^{sentence}"):
        exported(name, tmp_path, format)
    assert not (tmp_path / "other.safetensors").exists()


def test_a_dora_and_layers_without_a_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="--export kohya of a DoRA is not known here"):
        exported("sd", tmp_path, "kohya", use_dora=True)
    with pytest.raises(UserError, match="comfyui knows no name for transformer.x_embedder; train other --lora_layers"):
        exported("flux", tmp_path, "comfyui", layers=("x_embedder",))


def test_every_pipeline_has_an_answer():
    known = {StableDiffusionPipeline, StableDiffusionXLPipeline, *COMFYUI_LAYERS}
    without = {pipeline.__name__ for pipeline in FAMILIES} - {pipeline.__name__ for pipeline in known}
    assert without == {"PixArtAlphaPipeline", "PixArtSigmaPipeline", "SanaPipeline"}


class Fork(FluxPipeline):
    """A user's pipeline."""


def test_a_pipeline_of_a_users_own_is_what_it_derives_from(tmp_path):
    trained("flux", tmp_path, False)
    state = load_file(tmp_path / FILE)
    assert export(state, "comfyui", Fork).keys() == export(state, "comfyui", FluxPipeline).keys()


def test_a_file_under_older_names_of_diffusers_is_exported_too(tmp_path):
    trained("sd", tmp_path, False)
    state = load_file(tmp_path / FILE)
    old = {
        key.replace(".lora_A.weight", ".lora.down.weight").replace(".lora_B.weight", ".lora.up.weight"): value
        for key, value in state.items()
    }
    save_file(old, tmp_path / "old.safetensors")
    write_export(tmp_path / "old.safetensors", tmp_path / "other.safetensors", "kohya", StableDiffusionPipeline)
    wanted = export(state, "kohya", StableDiffusionPipeline)
    found = load_file(tmp_path / "other.safetensors")
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


# As a command, and while training


@pytest.fixture(scope="module")
def lora_run(small_flags, tmp_path_factory):
    """The folder of a run that exports while it saves."""
    folder = tmp_path_factory.mktemp("exports") / "my-run"
    flags = {
        "use_lora": True,
        "max_train_steps": 1,
        "train_batch_size": 2,
        "export": ["kohya", "comfyui"],
        "output_dir": folder,
    }
    flags["base_model_name"] = ["me/distilled", "me/full"]
    run_program(SCRIPT, small_flags | flags)
    return folder


def test_a_run_leaves_its_lora_for_other_programs_and_the_stock_pipeline_still_finds_its_own(lora_run):
    kohya, comfyui, own = (
        load_file(lora_run / f"{name}.safetensors") for name in ("my-run-kohya", "my-run-comfyui", FILE[:-12])
    )
    assert kohya.keys() == comfyui.keys() and len(kohya) == len(own) * 3 // 2
    assert all(torch.equal(kohya[key], comfyui[key]) for key in kohya)
    one, other = tiny.make_pipe(), tiny.make_pipe()
    one.load_lora_weights(lora_run)  # three files lie there
    other.load_lora_weights(lora_run, weight_name="my-run-kohya.safetensors")
    assert_close(predict(one), predict(other), rtol=1e-4, atol=1e-5)


def test_the_card_tells_of_the_other_files_and_names_the_base_as_asked(lora_run):
    card = ModelCard.load(lora_run / "README.md")
    assert card.data.base_model == ["me/distilled", "me/full"]
    assert "`my-run-comfyui.safetensors` is the same LoRA in the format of comfyui." in card.text


def test_the_command_writes_what_training_writes(lora_run, pipe_dir, capsys):
    given = lora_run / "my-run-kohya.safetensors"
    wanted = given.read_bytes()
    given.unlink()
    flags = {"lora": lora_run, "format": "kohya", "pretrained_model_name_or_path": pipe_dir}
    run_program(SCRIPT.with_name("export_lora.py"), flags)
    assert given.read_bytes() == wanted
    assert str(given) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            {"pretrained_model_name_or_path": None},
            "does not tell its base; name it in --pretrained_model_name_or_path",
        ),
        ({"pretrained_model_name_or_path": "./nothing"}, "--pretrained_model_name_or_path './nothing' is no pipeline"),
        ({"lora": "./nothing"}, "--lora './nothing' holds no pytorch_lora_weights.safetensors"),
        ({"format": "other"}, "--format must be one of kohya, comfyui, got 'other'"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(lora_run, pipe_dir, flags, sentence, capsys):
    right = {"lora": lora_run, "format": "kohya", "pretrained_model_name_or_path": pipe_dir}
    with pytest.raises(SystemExit) as stopped:
        run_program(SCRIPT.with_name("export_lora.py"), right | flags)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (None, "is no safetensors file that can be read"),
        (
            {"unet.x": torch.zeros(2, 2)},
            "--lora holds no LoRA as diffusers writes it: its first tensor is called 'unet.x'",
        ),
        ({}, "--lora holds no LoRA as diffusers writes it: it is empty"),
        (
            {"unet.x.lora_A.weight": torch.tensor([[float("nan")]])},
            "numbers that are not finite, in unet.x.lora_A.weight",
        ),
    ],
    ids=["no tensors", "no LoRA", "empty", "nan"],
)
def test_a_file_that_is_no_lora_is_one_sentence(pipe_dir, tmp_path, state, sentence, capsys):
    path = tmp_path / "strange.safetensors"
    torch.save({"a": torch.zeros(1)}, path) if state is None else save_file(state, path)
    flags = {"lora": path, "format": "kohya", "pretrained_model_name_or_path": pipe_dir}
    with pytest.raises(SystemExit) as stopped:
        run_program(SCRIPT.with_name("export_lora.py"), flags)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["strange.safetensors"]


def test_an_export_makes_its_folder_and_never_takes_the_place_of_the_lora(lora_run, pipe_dir, tmp_path, capsys):
    source = lora_run / FILE
    before = source.read_bytes()
    flags = {"lora": lora_run, "format": "kohya", "pretrained_model_name_or_path": pipe_dir}
    run_program(
        SCRIPT.with_name("export_lora.py"), flags | {"output_file": tmp_path / "deep" / "er" / "x.safetensors"}
    )
    assert load_file(tmp_path / "deep" / "er" / "x.safetensors")
    with pytest.raises(SystemExit) as stopped:
        run_program(SCRIPT.with_name("export_lora.py"), flags | {"output_file": source})
    assert stopped.value.code == 2 and "is the LoRA itself, which would be lost" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_run_that_could_not_be_exported_at_its_end_does_not_begin(refused):
    assert "--export kohya of a DoRA is not known here" in refused(export=["kohya"], use_dora=True)
    assert "--base_model_name names models on the Hub, as in owner/name" in refused(base_model_name=["/a/b"])
    assert "--export kohya comfyui is for a LoRA; add --use_lora" in refused(
        export=["kohya", "comfyui"], use_lora=None
    )
