"""The training script, run as users run it on a tiny pipeline."""

import importlib.util
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_families
import tiny_pixart_sana
import torch
from conftest import as_flags
from datasets import load_from_disk
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, StableDiffusionPipeline, UNet2DModel
from PIL import Image
from processes import finish, said, start
from safetensors.torch import load_file


LORA = "pytorch_lora_weights.safetensors"


def read_log(output) -> list[dict]:
    return [json.loads(line) for line in (Path(output) / "training_log.jsonl").read_text().splitlines()]


def write_rows(folder, number: int = 4, **columns) -> str:
    tiny.make_dataset(number, **columns).save_to_disk(folder)
    return str(folder)


def without_caches(environment) -> dict:
    return {name: value for name, value in environment.items() if name != "ACCELERATE_USE_CPU"}


def test_a_lora_run_leaves_everything_that_it_should(tmp_path, small_flags):
    output = tmp_path / "model"
    flags = small_flags | {
        "use_lora": True,
        "loss_type": "tdpo",
        "beta": 500,
        "anchor_weight": 0,
        "num_mismatched": 2,
        "train_batch_size": 2,
        "max_train_steps": 5,
        "checkpointing_steps": 1,
        "checkpoints_total_limit": 2,
        "validation_prompt": ["cat", "red dog"],
        "validation_steps": 3,
        "num_validation_images": 2,
        "gradient_checkpointing": True,
        "report_to": "tensorboard",
        "output_dir": output,
    }
    assert finish(start(1, as_flags(flags), tmp_path)) == [0], said(tmp_path)

    log = read_log(output)
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5]
    assert log[0]["loss"] == pytest.approx(math.log(2))
    metrics = {"error/matched", "reward/matched", "reward/mismatched", "reward/margin", "reward/accuracy"}
    assert metrics | {"lr", "loss", "clipped_fraction"} <= log[0].keys()
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5"]
    assert not list(output.glob(".partial*"))
    checkpoint = output / "checkpoint-5"
    base = Path(small_flags["pretrained_model_name_or_path"]) / "unet" / "diffusion_pytorch_model.safetensors"
    assert max(path.stat().st_size for path in checkpoint.iterdir()) < base.stat().st_size / 2  # no denoiser in it
    shown = output / "validation"
    images = sorted(str(path.relative_to(shown)) for path in shown.rglob("*.png"))
    assert images == [
        f"step-{step}/{prompt}-{image}.png" for step in (0, 3, 5) for prompt in (0, 1) for image in (0, 1)
    ]
    assert Image.open(output / "validation" / images[0]).size == (tiny.RESOLUTION, tiny.RESOLUTION)
    assert list((output / "logs").rglob("events.out.tfevents*"))
    card = (output / "README.md").read_text()
    assert "text-preference-optimization" in card and str(tmp_path) not in card
    told = (tmp_path / "output-0.txt").read_text()
    assert not any(word in told for word in ("Traceback", "FutureWarning", "DeprecationWarning"))

    pipe = StableDiffusionPipeline.from_pretrained(small_flags["pretrained_model_name_or_path"])
    pipe.set_progress_bar_config(disable=True)

    def render():
        generator = torch.Generator().manual_seed(0)
        return pipe("cat", num_inference_steps=2, generator=generator, output_type="np").images

    before = render()
    pipe.load_lora_weights(output)
    assert np.abs(render() - before).max() > 0


@pytest.mark.parametrize(
    "flags",
    [
        {"use_lora": True, "loss_type": "tdpo", "lora_dropout": 0.1, "dataloader_num_workers": 1},
        {"use_lora": True, "loss_type": "sft", "use_ema": True, "lr_scheduler": "cosine", "lr_warmup_steps": 2},
        {"loss_type": "tkto", "gradient_accumulation_steps": 2, "max_train_steps": 3},
    ],
    ids=["tdpo with dropout", "sft with ema", "full tkto with accumulation"],
)
def test_a_resumed_run_is_the_uninterrupted_run(run_script, tmp_path, flags):
    """Four batches an epoch, five batches in all; one run against two that lost everything after a checkpoint: inside an epoch
    and at its end."""
    flags = {"train_batch_size": 2, "max_train_steps": 5, "checkpointing_steps": 1, "beta": 500} | flags
    whole, weights = tmp_path / "whole", LORA if "use_lora" in flags else "unet/diffusion_pytorch_model.safetensors"
    run_script(**flags, output_dir=whole)
    for stop in (3, 4) if flags["max_train_steps"] == 5 else (1, 2):
        resumed = tmp_path / f"resumed-{stop}"
        shutil.copytree(whole / f"checkpoint-{stop}", resumed / f"checkpoint-{stop}")
        shutil.copy(whole / "training_log.jsonl", resumed)
        run_script(**flags, output_dir=resumed, resume_from_checkpoint="latest")
        assert read_log(resumed) == read_log(whole)
        first, second = load_file(whole / weights), load_file(resumed / weights)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_latest_without_a_checkpoint_begins_at_the_start(run_script, tmp_path):
    run_script(use_lora=True, max_train_steps=1, resume_from_checkpoint="latest", output_dir=tmp_path)
    assert [row["step"] for row in read_log(tmp_path)] == [1]


def test_a_full_tkto_run_leaves_a_pipeline(run_script, tmp_path, small_flags):
    run_script(
        loss_type="tkto", beta=100, anchor_weight=0, max_train_steps=2, reference_dtype="bf16", output_dir=tmp_path
    )
    log = read_log(tmp_path)
    assert log[0]["loss"] == pytest.approx(0.5, abs=0.05) and "baseline" in log[0]
    pipe = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(pipe) is StableDiffusionPipeline
    base = DiffusionPipeline.from_pretrained(small_flags["pretrained_model_name_or_path"])
    moved = [not torch.equal(p, q) for p, q in zip(pipe.unet.parameters(), base.unet.parameters(), strict=True)]
    assert all(moved)
    for name in ("vae", "text_encoder"):
        ours, theirs = getattr(pipe, name).state_dict(), getattr(base, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_full_tdpo_starts_at_exactly_log_2_in_mixed_precision(run_script, tmp_path):
    run_script(loss_type="tdpo", anchor_weight=0, max_train_steps=1, mixed_precision="bf16", output_dir=tmp_path)
    assert read_log(tmp_path)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_unpaired_rows_and_streaming(run_script, tmp_path):
    data = write_rows(tmp_path / "data", negative_prompts=None, principles=None, label=[True, False, True, False])
    flags = {"train_data_dir": data, "use_lora": True, "loss_type": "tkto", "anchor_weight": 0, "train_batch_size": 2}
    run_script(**flags, max_train_steps=3, streaming=True, output_dir=tmp_path / "model")
    log = read_log(tmp_path / "model")
    assert len(log) == 3 and log[0]["loss"] == pytest.approx(0.5)


def test_sft_with_ema_saves_the_average(run_script, tmp_path):
    flags = {"use_lora": True, "loss_type": "sft", "snr_gamma": 5, "max_train_steps": 4, "train_batch_size": 2}
    run_script(**flags, output_dir=tmp_path / "plain")
    run_script(**flags, use_ema=True, ema_decay=0.5, output_dir=tmp_path / "ema")
    plain, average = load_file(tmp_path / "plain" / LORA), load_file(tmp_path / "ema" / LORA)
    assert read_log(tmp_path / "plain") == read_log(tmp_path / "ema")
    up = [name for name in plain if "lora_B" in name or "lora.up" in name]
    assert up and all(average[name].norm() < plain[name].norm() for name in up)  # B grows from zero, its average lags


def test_the_stabilisers_are_logged(run_script, tmp_path):
    run_script(use_lora=True, winner_preserving_mu=0.5, max_train_steps=1, output_dir=tmp_path)
    assert {"anchor", "preference_loss", "clipped_fraction", "winner_preserving_scale"} <= read_log(tmp_path)[0].keys()


def test_a_collapse_stops_with_a_checkpoint_where_asked(run_script, tmp_path, capsys):
    """At a huge learning rate the matched error soon lies far above the reference's."""
    flags = {"use_lora": True, "learning_rate": 1.0, "beta": 1, "mismatched_clip": 1e6, "anchor_weight": 0}
    flags |= {"collapse_bound": 0.05, "collapse_patience": 2, "max_train_steps": 30, "num_train_epochs": 30}
    with pytest.raises(SystemExit) as stopped:
        run_script(**flags, collapse_action="stop", output_dir=tmp_path)
    step = read_log(tmp_path)[-1]["step"]
    assert stopped.value.code == 1
    assert f"stopped at step {step}: Collapse: for 2 steps" in capsys.readouterr().err
    assert (tmp_path / f"checkpoint-{step}").is_dir()


# Wrong input


def test_unknown_column(refused):
    assert "caption_column 'text' is not a column of the data set; it has image, prompt" in refused(
        caption_column="text"
    )


def test_empty_data_set(refused, tmp_path):
    empty = tiny.make_dataset(1).select([])
    empty.save_to_disk(tmp_path / "saved", num_shards=1)
    assert "holds no rows" in refused(train_data_dir=str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    empty.to_parquet(tmp_path / "parquet" / "train.parquet")
    assert "no data" in refused(train_data_dir=str(tmp_path / "parquet"), cache_dir=str(tmp_path / "cache"))


def test_missing_data_set(refused, tmp_path):
    assert "cannot be loaded" in refused(train_data_dir=str(tmp_path / "nowhere"))


def test_both_or_no_data_set(refused):
    assert "exactly one of --dataset_name and --train_data_dir" in refused(dataset_name="a/b")
    assert "exactly one of --dataset_name and --train_data_dir" in refused(train_data_dir=None)


def test_fewer_rows_than_a_batch(refused):
    assert "exceeds the 8 rows; lower it" in refused(train_batch_size=64)


def test_mismatched_prompt_equal_to_its_prompt(refused, tmp_path):
    data = write_rows(tmp_path / "data", 2, negative_prompts=[["a", "b"], ["c", "cat 1"]])
    assert "row 1: a mismatched prompt equals its prompt 'cat 1'" in refused(train_data_dir=data)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image(refused, tmp_path, workers):
    data = write_rows(tmp_path / "data", 2, image=[{"bytes": b"no image", "path": None}] * 2)
    message = refused(train_data_dir=data, train_batch_size=1, dataloader_num_workers=workers)
    assert message.startswith("error: row ") and "its image cannot be read" in message


@pytest.mark.parametrize(
    ("flag", "value"),
    [("beta", 0), ("beta", -1), ("mismatched_clip", 0), ("anchor_weight", -1), ("winner_preserving_mu", 2)]
    + [("train_batch_size", 0), ("num_mismatched", 0), ("resolution", 0), ("checkpointing_steps", 0), ("rank", 0)],
)
def test_numbers_out_of_range(refused, flag, value):
    assert f"error: --{flag} must " in refused(**{flag: value})


def test_other_flags_that_make_no_sense(refused):
    assert "--min_timestep 0.5 must be below --max_timestep 0.4" in refused(min_timestep=0.5, max_timestep=0.4)
    assert "--principles must be among content, " in refused(principles=["content", "style"])
    assert "--streaming needs --max_train_steps" in refused(streaming=True, max_train_steps=None)
    assert "resolution must be a multiple of 2 for this model, got 15; use 16" in refused(resolution=15)
    assert "--weighting_scheme cosmap weighs the error of --loss_type sft" in refused(weighting_scheme="cosmap")
    assert "--text_encoder_lr must be greater than 0, got -1.0" in refused(train_text_encoder=True, text_encoder_lr=-1)
    guided = "--guide_with reference does not go with --train_text_encoder"
    assert guided in refused(guide_with="reference", train_text_encoder=True)
    assert "--text_encoder_lr needs --train_text_encoder" in refused(text_encoder_lr=1e-5)
    assert "--max_sequence_length must be at least 1" in refused(max_sequence_length=0)
    assert "--logit_std must be greater than 0" in refused(logit_std=0)
    buckets = {"use_aspect_ratio_buckets": True}
    assert "aspect_ratio_buckets must be a multiple of 2" in refused(aspect_ratio_buckets="16,15", **buckets)
    assert "--aspect_ratio_buckets needs --use_aspect_ratio_buckets" in refused(aspect_ratio_buckets="16,16")
    assert "--streaming cannot group images" in refused(streaming=True, **buckets)
    assert "lora_layers nothing name no layer" in refused(lora_layers="nothing")


def test_lora_where_diffusers_loads_none(refused, tmp_path):
    tiny_families.make_pipe("pixart").save_pretrained(tmp_path / "pixart")
    message = refused(pretrained_model_name_or_path=str(tmp_path / "pixart"))
    assert "use_lora adds adapters, and diffusers loads none into a PixArtTransformer2DModel; leave it out" in message


def test_a_distilled_model_has_no_empty_prompt_that_its_reference_could_answer(refused, tmp_path):
    tiny_families.make_pipe("flux").save_pretrained(tmp_path / "flux")
    message = refused(pretrained_model_name_or_path=str(tmp_path / "flux"), guide_with="reference")
    assert "--guide_with reference cannot be: this FluxPipeline is guided by distillation" in message


def test_no_pipeline(refused, tmp_path):
    message = refused(pretrained_model_name_or_path=str(tmp_path / "nowhere"))
    assert "pretrained_model_name_or_path" in message and "cannot be loaded" in message


def test_a_pipeline_of_a_class_without_a_family(refused, tmp_path):
    levels = {"block_out_channels": (8,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DModel(sample_size=8, norm_num_groups=4, layers_per_block=1, **levels)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    message = refused(pretrained_model_name_or_path=str(tmp_path / "ddpm"))
    assert "is a DDPMPipeline, which has no family here; use one of Flux2KleinPipeline" in message


def test_a_pipeline_of_a_class_that_does_not_exist(refused, tmp_path, pipe_dir):
    shutil.copytree(pipe_dir, tmp_path / "odd")
    index = tmp_path / "odd" / "model_index.json"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', '"NoSuchPipeline"'))
    assert "NoSuchPipeline" in refused(pretrained_model_name_or_path=str(tmp_path / "odd"))


def test_resuming_another_configuration_or_a_missing_checkpoint(run_script, refused, tmp_path):
    run_script(use_lora=True, beta=500, max_train_steps=1, checkpointing_steps=1, output_dir=tmp_path / "model")
    message = refused(beta=400, rank=2, resume_from_checkpoint="latest", max_train_steps=2)
    assert "checkpoint-1 was written by another run: " in message
    assert "beta was 500.0 and is 400.0" in message and "rank was 4 and is 2" in message
    message = refused(beta=500, resume_from_checkpoint="checkpoint-9", max_train_steps=2)
    assert "'checkpoint-9' is not in --output_dir, which has checkpoint-1" in message


def test_a_schedule_that_decays_goes_on_to_the_same_end(run_script, refused, tmp_path):
    flags = {"use_lora": True, "lr_scheduler": "cosine", "checkpointing_steps": 1, "output_dir": tmp_path}
    run_script(**flags, max_train_steps=2)
    again = flags | {"resume_from_checkpoint": "checkpoint-1"}
    message = "--lr_scheduler cosine ends with --max_train_steps, which was 2 and is 3"
    assert message in refused(**again, max_train_steps=3)
    run_script(**again, max_train_steps=1)  # makes the checkpoint the final model


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU could run it")
def test_8_bit_adam_without_the_package_or_a_gpu(refused):
    there = importlib.util.find_spec("bitsandbytes") is not None
    expected = "use_8bit_adam needs a CUDA GPU" if there else "pip install 'diffusers_tpo[bnb]'"
    assert expected in refused(use_8bit_adam=True)


def test_a_real_process_ends_with_exit_code_2_and_one_sentence(small_flags, tmp_path):
    flags = small_flags | {"beta": 0, "output_dir": tmp_path / "model"}
    assert finish(start(1, as_flags(flags), tmp_path)) == [2]
    assert said(tmp_path).splitlines()[-1].startswith("error: --beta must be greater than 0, got 0.0")
    assert "Traceback" not in said(tmp_path)


def test_no_rows_are_changed_on_disk(run_script, tmp_path):
    data = write_rows(tmp_path / "data")
    before = load_from_disk(data).to_dict()
    run_script(use_lora=True, train_data_dir=data, max_train_steps=1, output_dir=tmp_path / "model")
    assert load_from_disk(data).to_dict() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "use_lora"),
    [
        (name, use_lora)
        for name in ("sdxl", "sd3", "flux", "schnell", "pixart", "sana", "qwen_image", "flux2", "klein", "z_image")
        for use_lora in (True, False)
        if not (use_lora and name in tiny_pixart_sana.NO_LORA)
    ],
)
def test_other_families_train_with_the_same_flags_and_load_in_their_stock_pipeline(
    name, use_lora, run_script, tmp_path
):
    base, pipe = tmp_path / name, tiny_families.make_pipe(name)
    pipe.save_pretrained(base)
    size = tiny_families.call_flags(pipe)
    flags = {"pretrained_model_name_or_path": base, "use_lora": use_lora, "beta": 500, "max_train_steps": 2}
    flags["resolution"] = size["height"]
    flags |= {"eval_steps": 2, "eval_split": "train", "max_eval_samples": 2}
    flags |= {"train_batch_size": 2, "output_dir": tmp_path / "out", "random_flip": True}
    is_shown = use_lora or name in tiny_pixart_sana.NO_LORA  # renders take their time
    flags |= {"validation_prompt": "cat", "num_validation_images": 1} if is_shown else {}
    run_script(**flags)
    log = read_log(tmp_path / "out")
    assert log[0]["reward/margin"] == pytest.approx(0, abs=1e-4) and "eval/implicit/score" in log[1]
    for image in ("validation/step-0/0-0.png", "validation/step-2/0-0.png", "assets/prompt-0-after.jpg"):
        assert (tmp_path / "out" / image).exists() == is_shown
    options = {"num_inference_steps": 2, "output_type": "np"} | size
    images = []
    for trained in (False, True):
        pipe = DiffusionPipeline.from_pretrained(base if use_lora or not trained else tmp_path / "out")
        if use_lora and trained:
            pipe.load_lora_weights(tmp_path / "out")
        pipe.set_progress_bar_config(disable=True)
        images.append(pipe(prompt="cat", generator=torch.Generator().manual_seed(0), **options).images)
    assert np.abs(images[0] - images[1]).max() > 1e-6


SLOW_FAMILIES = [pytest.param(name, marks=pytest.mark.slow) for name in ("sdxl", "flux", "qwen_image")]


@pytest.mark.parametrize("name", ["sd", *SLOW_FAMILIES])
def test_images_of_any_shape_train_in_buckets_of_one_shape(name, run_script, tmp_path):
    """Eight wide and four tall images; kept encodings and a resumed run give the same."""
    shapes = [(40, 20)] * 8 + [(16, 32)] * 4
    images = [image.resize(shape) for image, shape in zip(tiny.make_images(12), shapes, strict=True)]
    data = write_rows(tmp_path / "data", 12, image=images)
    tiny_families.make_pipe(name).save_pretrained(tmp_path / name)
    flags = {"pretrained_model_name_or_path": tmp_path / name, "train_data_dir": data, "use_lora": True, "beta": 500}
    flags |= {"train_batch_size": 4, "max_train_steps": 5, "use_aspect_ratio_buckets": True, "center_crop": True}
    flags |= {"aspect_ratio_buckets": "12,24;24,12;16,16", "checkpointing_steps": 4, "max_train_steps": 5}
    run_script(**flags, output_dir=tmp_path / "live")
    log = read_log(tmp_path / "live")
    assert log[0]["reward/margin"] == pytest.approx(0, abs=1e-4) and len(log) == 5
    if name == "sd":  # where a run goes on does not depend on the family
        run_script(**flags, output_dir=tmp_path / "live", resume_from_checkpoint="latest")
        assert read_log(tmp_path / "live") == log
    run_script(**flags, cache_latents=True, encodings_dir=tmp_path / "kept", output_dir=tmp_path / "two")
    for row, kept in zip(log, read_log(tmp_path / "two"), strict=True):
        assert row == pytest.approx(kept, rel=1e-3, abs=1e-5)
    shapes = {
        tuple(x.shape[2:])
        for path in (tmp_path / "kept").rglob("*.safetensors")
        for key, x in load_file(path).items()
        if key.endswith("mean")
    }
    assert shapes == {(6, 12), (12, 6)}


@pytest.mark.slow
@pytest.mark.parametrize("use_lora", [True, False], ids=["lora", "full"])
def test_channels_last_and_compiled_blocks_change_the_last_digits_only(run_script, tmp_path, use_lora):
    """The backend that traces as any other does and compiles nothing."""
    flags = {"use_lora": use_lora, "beta": 500, "max_train_steps": 3, "learning_rate": 1e-4, "use_ema": True}
    fast = {"channels_last": True, "torch_compile_backend": "eager", "checkpointing_steps": 2}
    run_script(**flags, output_dir=tmp_path / "plain")
    run_script(**flags, **fast, output_dir=tmp_path / "fast")
    log, name = read_log(tmp_path / "fast"), LORA if use_lora else "unet/diffusion_pytorch_model.safetensors"
    for row, plain in zip(log, read_log(tmp_path / "plain"), strict=True):
        row, plain = ({name: x for name, x in part.items() if name != "reward/accuracy"} for part in (row, plain))
        assert row == pytest.approx(plain, rel=1e-3, abs=1e-6)  # accuracy is the sign of margins, which begin at 0
    weights, plain = load_file(tmp_path / "fast" / name), load_file(tmp_path / "plain" / name)
    assert weights.keys() == plain.keys()
    for key, value in weights.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-2, atol=1e-4)
    run_script(**flags, **fast, output_dir=tmp_path / "fast", resume_from_checkpoint="latest")
    assert read_log(tmp_path / "fast") == log


def test_what_cannot_be_compiled(refused):
    assert "must be one of" in refused(torch_compile_backend="fast")
