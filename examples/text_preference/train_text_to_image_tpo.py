#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo"]
# ///
"""Fine-tunes a text-to-image model with Text Preference Optimization (https://huggingface.co/papers/2509.25771).

    accelerate launch train_text_to_image_tpo.py \
        --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-v1-5 \
        --dataset_name your-name/hpsd-tpo-negatives --use_lora --loss_type tdpo --mixed_precision fp16 \
        --train_batch_size 4 --gradient_accumulation_steps 4 --max_train_steps 500 --output_dir sd15-tpo

The README beside this file explains every group of flags.
"""

import copy
import itertools
import logging
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.logging import get_logger
from accelerate.utils import LoggerType, ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from diffusers_tpo import TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.adapters import add_lora, register_lora_hooks, save_lora
from diffusers_tpo.cards import public_config, write_model_card
from diffusers_tpo.checkpoints import TrainingLog, check_config, find_checkpoint, read_state, save_checkpoint
from diffusers_tpo.data import PRINCIPLES, Columns, RowReader, as_torch_dataset, check_columns, collate, load_rows
from diffusers_tpo.errors import UserError, exit_on_user_error, require
from diffusers_tpo.evaluation.watch import EvaluationConfig, make_watch
from diffusers_tpo.families import family_of
from diffusers_tpo.hub import push_folder
from diffusers_tpo.models import fingerprint, load_pipeline
from diffusers_tpo.noising import sample_latents
from diffusers_tpo.trainer import CollapseAlarm, mean_over_processes
from diffusers_tpo.validation import averaged_weights, render_prompts, show_images


logger = get_logger(__name__)
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
SHOWN = ("loss", "reward/matched", "reward/margin", "reward/accuracy")


def flag(default, help: str):
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class ModelArguments:
    """The model."""

    pretrained_model_name_or_path: str = field(metadata={"help": "Hub id or folder of a diffusers pipeline."})
    revision: str | None = flag(None, "Revision of the pipeline on the Hub.")
    variant: str | None = flag(None, "Variant of its weight files, such as fp16.")
    pretrained_vae_model_name_or_path: str | None = flag(None, "Another VAE.")
    prediction_type: Literal["epsilon", "v_prediction"] | None = flag(None, "If the scheduler's config is wrong.")
    use_lora: bool = flag(False, "Train LoRA weights instead of the whole denoiser.")
    rank: int = flag(16, "Rank of the LoRA.")
    lora_alpha: float | None = flag(None, "Scale of the LoRA times its rank; the rank itself by default.")
    lora_dropout: float = flag(0.0, "Dropout before the LoRA; the reference never sees it.")
    lora_layers: str | None = flag(None, "Comma-separated ends of layer names; attention layers by default.")
    use_dora: bool = flag(False, "Weight-decomposed LoRA.")
    reference_dtype: Literal["no", "fp16", "bf16"] = flag("no", "Of the frozen copy in full training; no is float32.")
    reference_device: str | None = flag(None, "Of the frozen copy in full training, such as cpu.")


@dataclass
class DataArguments:
    """What it is trained on."""

    dataset_name: str | None = flag(None, "Hub id, or a local folder: imagefolder, parquet or save_to_disk.")
    train_data_dir: str | None = flag(None, "The same for a local folder only.")
    dataset_config_name: str | None = flag(None, "Configuration of the data set.")
    dataset_split: str = flag("train", "Split to train on.")
    dataset_revision: str | None = flag(None, "Revision of the data set on the Hub.")
    streaming: bool = flag(False, "Read the data set while training; needs max_train_steps.")
    image_column: str = flag("image", "Column of the images.")
    caption_column: str = flag("prompt", "Column of the matched prompts.")
    negative_prompts_column: str = flag("negative_prompts", "Column of the lists of mismatched prompts.")
    principles_column: str = flag("principles", "Column of the lists of their principles.")
    label_column: str = flag("label", "Column that says whether an unpaired prompt matches, for TKTO.")
    principles: list[str] = flag(list(PRINCIPLES), "Train on mismatched prompts of these principles only.")
    num_mismatched: int = flag(1, "Mismatched prompts per image and step.")
    max_train_samples: int | None = flag(None, "Use only the first rows.")
    resolution: int = flag(512, "Side of the square images in pixels.")
    center_crop: bool = flag(False, "Crop at the centre instead of at random.")
    random_flip: bool = flag(False, "Mirror half of the images; wrong for captions that say left or right.")
    proportion_empty_prompts: float = flag(0.0, "Share of prompts left empty; supervised fine-tuning only.")


@dataclass
class TrainingArguments:
    """How each step is computed; a resumed run must keep these."""

    seed: int = flag(0, "Seed of every random number.")
    train_batch_size: int = flag(4, "Images per process and forward pass.")
    gradient_accumulation_steps: int = flag(1, "Forward passes per optimizer step.")
    mixed_precision: Literal["no", "fp16", "bf16"] = flag("no", "Of the forward passes; trained weights stay float32.")
    learning_rate: float = flag(1e-5, "Peak learning rate.")
    scale_lr: bool = flag(False, "Multiply it by batch size, accumulation and processes.")
    lr_scheduler: Literal[SCHEDULES] = flag("constant_with_warmup", "Schedule of the learning rate.")
    lr_warmup_steps: int = flag(0, "Optimizer steps of warm-up.")
    lr_num_cycles: int = flag(1, "Of cosine_with_restarts.")
    lr_power: float = flag(1.0, "Of polynomial.")
    use_8bit_adam: bool = flag(False, "AdamW of bitsandbytes; needs a GPU.")
    adam_beta1: float = flag(0.9, "Of AdamW.")
    adam_beta2: float = flag(0.999, "Of AdamW.")
    adam_weight_decay: float = flag(1e-2, "Of AdamW.")
    adam_epsilon: float = flag(1e-8, "Of AdamW.")
    max_grad_norm: float = flag(1.0, "Gradients are clipped to this norm.")
    use_ema: bool = flag(False, "Average the weights; validation and the final model use the average.")
    ema_decay: float = flag(0.9999, "Upper bound of the average's decay.")
    noise_offset: float = flag(0.0, "Offset noise; 0.05 to 0.1 where wanted.")
    snr_gamma: float | None = flag(None, "Min-SNR weighting of supervised fine-tuning; 5 is usual.")
    min_timestep: float = flag(0.0, "Lowest timestep, as a share of all.")
    max_timestep: float = flag(1.0, "Highest timestep, as a share of all.")


@dataclass
class RunArguments:
    """How long it runs and what it leaves behind; a resumed run may change these."""

    output_dir: str = flag("tpo-model", "Where everything is written.")
    num_train_epochs: int = flag(1, "Passes over the data set, unless max_train_steps is given.")
    max_train_steps: int | None = flag(None, "Optimizer steps.")
    gradient_checkpointing: bool = flag(False, "Less memory, more time.")
    allow_tf32: bool = flag(False, "Faster float32 matrix products on Ampere and newer.")
    dataloader_num_workers: int = flag(0, "Processes that read images.")
    cache_dir: str | None = flag(None, "Where downloads are kept.")
    collapse_bound: float = flag(0.2, "Alarm when the matched error lies this share above the reference's ...")
    collapse_patience: int = flag(50, "... for this many steps in a row; 0 switches the alarm off.")
    collapse_action: Literal["warn", "stop"] = flag("warn", "What then; stop leaves a checkpoint.")
    checkpointing_steps: int = flag(500, "Optimizer steps between checkpoints.")
    checkpoints_total_limit: int | None = flag(None, "Keep only so many.")
    resume_from_checkpoint: str | None = flag(None, "A checkpoint's name, or latest.")
    validation_prompt: list[str] = flag([], "Prompts that are rendered on a schedule.")
    num_validation_images: int = flag(4, "Images per prompt.")
    validation_steps: int = flag(100, "Optimizer steps between renders.")
    validation_guidance_scale: float = flag(7.5, "Guidance of these renders.")
    report_to: str = flag("tensorboard", "tensorboard, wandb, trackio, any tracker of accelerate, all or none.")
    logging_dir: str = flag("logs", "Folder of the trackers inside output_dir.")
    tracker_project_name: str = flag("text-preference-optimization", "Project name for the trackers.")
    push_to_hub: bool = flag(False, "Push the final model and its card.")
    hub_model_id: str | None = flag(None, "Where to; the name of output_dir under your account by default.")
    hub_token: str | None = flag(None, "Unsafe on a shared machine; `hf auth login` is better. Never stored.")


def check_arguments(data: DataArguments, args: TrainingArguments, evals: EvaluationConfig, run: RunArguments):
    if (data.dataset_name is None) == (data.train_data_dir is None):
        raise UserError("give exactly one of dataset_name and train_data_dir")
    if data.streaming and (run.max_train_steps is None or run.dataloader_num_workers):
        raise UserError("streaming needs max_train_steps, as a stream has no length, and dataloader_num_workers 0")
    trackers = [str(tracker) for tracker in LoggerType] + ["none"]
    if run.report_to not in trackers:
        raise UserError(f"report_to must be one of {', '.join(trackers)}, got {run.report_to!r}")
    if not 0 <= args.min_timestep < args.max_timestep <= 1:
        bounds = f"min_timestep {args.min_timestep} must be below max_timestep {args.max_timestep}"
        raise UserError(f"{bounds}, both in 0 to 1")
    positive = [(data, "resolution"), (data, "num_mismatched"), (args, "train_batch_size")]
    positive += [(args, "gradient_accumulation_steps"), (run, "checkpointing_steps"), (run, "validation_steps")]
    for group, name in positive:
        if getattr(group, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(group, name)}")
    if evals.load_best_model_at_end and evals.eval_steps % run.checkpointing_steps:
        needed = f"a multiple of checkpointing_steps {run.checkpointing_steps}"
        raise UserError(f"load_best_model_at_end needs eval_steps to be {needed}, got {evals.eval_steps}")
    if wrong := [name for name in data.principles if name not in PRINCIPLES]:
        raise UserError(f"principles must be among {', '.join(PRINCIPLES)}, got {', '.join(wrong)}")
    if args.use_8bit_adam:
        require("bitsandbytes", extra="bnb")
        if not torch.cuda.is_available():
            raise UserError("use_8bit_adam needs a CUDA GPU, and none is visible; leave it out")


def columns_of(data: DataArguments) -> Columns:
    names = (data.image_column, data.caption_column, data.negative_prompts_column, data.principles_column)
    return Columns(*names, label=data.label_column)


def load_data(data: DataArguments, loss_type: str, seed: int, run: RunArguments):
    source = {"config": data.dataset_config_name, "split": data.dataset_split, "revision": data.dataset_revision}
    options = {"streaming": data.streaming, "cache_dir": run.cache_dir, "token": run.hub_token}
    rows = load_rows(data.dataset_name or data.train_data_dir, **source, **options)
    columns = columns_of(data)
    unpaired = check_columns(rows, columns, loss_type)
    pixels = {"resolution": data.resolution, "center_crop": data.center_crop, "random_flip": data.random_flip}
    prompts = {"num_mismatched": data.num_mismatched, "principles": tuple(data.principles)}
    prompts |= {"proportion_empty_prompts": data.proportion_empty_prompts}
    reader = RowReader(columns, loss_type, unpaired, seed, **pixels, **prompts)
    return as_torch_dataset(rows, reader, data.max_train_samples)


def load_watch(evals: EvaluationConfig, data: DataArguments, seed: int, run: RunArguments, device):
    """What every checkpoint is asked, `None` for nothing."""
    if evals.eval_steps is None:
        return None
    own = {} if evals.eval_dataset_name else {"config": data.dataset_config_name, "revision": data.dataset_revision}
    name = evals.eval_dataset_name or data.dataset_name or data.train_data_dir
    options = {"cache_dir": run.cache_dir, "token": run.hub_token}
    rows = load_rows(name, split=evals.eval_split, argument="eval_dataset_name", **own, **options)
    folder = Path(run.output_dir) / "evaluation"
    return make_watch(evals, rows, columns_of(data), data.resolution, seed, folder, str(device), **options)


def make_optimizer(parameters, args: TrainingArguments, processes: int):
    scale = args.gradient_accumulation_steps * args.train_batch_size * processes if args.scale_lr else 1
    AdamW = require("bitsandbytes.optim", extra="bnb").AdamW8bit if args.use_8bit_adam else torch.optim.AdamW
    betas, decay = (args.adam_beta1, args.adam_beta2), args.adam_weight_decay
    return AdamW(parameters, lr=args.learning_rate * scale, betas=betas, weight_decay=decay, eps=args.adam_epsilon)


def save_final(pipe, family, model: ModelArguments, data: DataArguments, config, run: RunArguments, history, **card):
    """Writes the LoRA or the pipeline with its card, and pushes both where asked."""
    output = Path(run.output_dir)
    if model.use_lora:
        save_lora(type(pipe), getattr(pipe, family.denoiser), family.denoiser, output)
    else:
        pipe.save_pretrained(output)
    repo = run.hub_model_id or output.resolve().name
    source, base = data.dataset_name or data.train_data_dir, model.pretrained_model_name_or_path
    write_model_card(output, repo, base, source, type(pipe).__name__, model.use_lora, config, history, **card)
    if run.push_to_hub:
        logger.info(f"Pushed to {push_folder(output, repo, run.hub_token)}")


def main(model: ModelArguments, data: DataArguments, tpo: TPOConfig, args: TrainingArguments, evals, run):
    check_arguments(data, args, evals, run)
    output = Path(run.output_dir)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if run.report_to == "none" else run.report_to,
        project_config=ProjectConfiguration(project_dir=run.output_dir, logging_dir=str(output / run.logging_dir)),
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
    )
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    for name in ("httpx", "accelerate.accelerator", "accelerate.checkpointing"):
        logging.getLogger(name).setLevel(logging.WARNING)
    set_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = run.allow_tf32
    dataset = load_data(data, tpo.loss_type, args.seed, run)
    watch = load_watch(evals, data, args.seed, run, accelerator.device)
    config = public_config(*map(asdict, (model, data, tpo, args)), {"num_processes": accelerator.num_processes})

    # The models: only the denoiser, or its LoRA, is trained, and the VAE stays float32, because half precision overflows.
    vae, options = model.pretrained_vae_model_name_or_path, {"cache_dir": run.cache_dir, "token": run.hub_token}
    pipe = load_pipeline(model.pretrained_model_name_or_path, model.revision, model.variant, vae, **options)
    family = family_of(pipe)
    scheduler = training_scheduler(pipe.scheduler, model.prediction_type)
    denoiser = getattr(pipe, family.denoiser)
    pipe.to(accelerator.device)
    trainer = TPOTrainer()
    trainer.tpo, trainer.family = tpo, family
    if model.use_lora:
        denoiser.to(DTYPES[args.mixed_precision])
        for part in (part for name, part in pipe.components.items() if name.startswith("text_encoder") and part):
            part.to(DTYPES[args.mixed_precision])  # a full pipeline is saved as it was loaded, in float32
        layers = model.lora_layers.replace(" ", "").split(",") if model.lora_layers else family.lora_targets
        add_lora(denoiser, layers, model.rank, model.lora_alpha, model.lora_dropout, model.use_dora)
        register_lora_hooks(accelerator)
    else:
        if tpo.loss_type != "sft":
            place = {"device": model.reference_device or accelerator.device, "dtype": DTYPES[model.reference_dtype]}
            trainer.reference = copy.deepcopy(denoiser).to(**place)
        denoiser.requires_grad_(True)
    if run.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    denoiser.train()
    trainable = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    ema = EMAModel(trainable, decay=args.ema_decay) if args.use_ema else None

    workers = run.dataloader_num_workers
    options = {"collate_fn": collate, "num_workers": workers, "drop_last": True}
    # A pass over the data must not draw from the global generator, or dropout would differ after resuming.
    loader = DataLoader(dataset, args.train_batch_size, generator=torch.Generator(), **options)
    optimizer = make_optimizer(trainable, args, accelerator.num_processes)
    denoiser, optimizer, loader = accelerator.prepare(denoiser, optimizer, loader)
    if not data.streaming:
        if len(loader) == 0:
            raise UserError(f"train_batch_size times processes exceeds the {len(dataset)} rows; lower it")
        steps_per_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
        run.max_train_steps = run.max_train_steps or run.num_train_epochs * steps_per_epoch
    shape = {"num_cycles": args.lr_num_cycles, "power": args.lr_power, "num_training_steps": run.max_train_steps}
    schedule = get_scheduler(args.lr_scheduler, optimizer.optimizer, num_warmup_steps=args.lr_warmup_steps, **shape)
    accelerator.register_for_checkpointing(schedule, *([ema] if ema else []))

    # Where to begin.
    checkpoint = find_checkpoint(output, run.resume_from_checkpoint) if run.resume_from_checkpoint else None
    state = {"step": 0, "epoch": 0, "batches": 0} if checkpoint is None else read_state(checkpoint)
    if checkpoint:
        check_config(checkpoint, config)
    if watch:
        with averaged_weights(None, trainable, denoiser), accelerator.autocast():  # the weights are still the base's
            watch.begin(pipe, scheduler, state["step"], fingerprint(model.pretrained_model_name_or_path))
    if checkpoint:
        accelerator.load_state(str(checkpoint))
        logger.info(f"Resuming from {checkpoint.name}")
    step = state["step"]
    history = TrainingLog(output / "training_log.jsonl", step, accelerator.is_main_process)
    accelerator.init_trackers(run.tracker_project_name, {k: str(v) for k, v in config.items()})
    alarm, waiting = CollapseAlarm(run.collapse_bound, run.collapse_patience), []
    hidden = not accelerator.is_main_process
    progress = tqdm(initial=step, total=run.max_train_steps, desc=tpo.loss_type, disable=hidden)
    noising = {"timestep_range": (args.min_timestep, args.max_timestep), "noise_offset": args.noise_offset}
    noising |= {"snr_gamma": args.snr_gamma if tpo.loss_type == "sft" else None}

    for epoch in itertools.count(state["epoch"]):
        if step >= run.max_train_steps:
            break
        dataset.begin_epoch(epoch)
        batches = state["batches"] if epoch == state["epoch"] else 0
        for batch in accelerator.skip_first_batches(loader, batches) if batches else loader:
            batches += 1
            with accelerator.accumulate(denoiser):
                with torch.no_grad():
                    latents = sample_latents(*family.encode_images(pipe, batch.pixels), batch.draws)
                    sizes = batch.sizes.to(accelerator.device).repeat(batch.prompts_per_image, 1)
                    cond = family.encode_prompts(pipe, batch.prompts) | family.encode_sizes(sizes)
                noised = add_noise(scheduler, latents, batch.draws, **noising).repeat(batch.prompts_per_image)
                with accelerator.autocast():  # for the frozen copy too, so that it starts with the policy's errors
                    loss, metrics = trainer.tpo_loss(denoiser, noised, cond, batch.is_matched.to(accelerator.device))
                waiting.append(metrics)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(trainable, args.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            if not accelerator.sync_gradients:
                continue

            schedule.step()
            if ema:
                ema.step(trainable)
            step += 1
            row = {"lr": schedule.get_last_lr()[0], **mean_over_processes(waiting)}
            waiting = []
            if watch and step % evals.eval_steps == 0:
                with averaged_weights(ema, trainable, denoiser), accelerator.autocast():
                    row |= watch.judge(f"checkpoint-{step}", pipe, scheduler)
            history.append(step, row)
            accelerator.log(row, step=step)
            progress.update()
            progress.set_postfix({name: f"{row[name]:.4g}" for name in SHOWN if name in row}, refresh=False)

            collapsed = alarm.update(row.get("reward/matched_relative", 0.0))
            stop = collapsed and run.collapse_action == "stop"
            if collapsed:
                logger.warning(alarm)
            if step % run.checkpointing_steps == 0 or stop:
                position = {"step": step, "epoch": epoch, "batches": batches, "config": config}
                keep = watch.best() if watch else None
                save_checkpoint(output, position, accelerator, limit=run.checkpoints_total_limit, keep=keep)
            if stop:
                accelerator.end_training()
                sys.exit(f"stopped by collapse_action at step {step}; checkpoint-{step} holds the state")
            if run.validation_prompt and step % run.validation_steps == 0 and accelerator.is_main_process:
                with averaged_weights(ema, trainable, denoiser), accelerator.autocast():
                    settings = (run.num_validation_images, run.validation_guidance_scale, args.seed)
                    images = render_prompts(pipe, run.validation_prompt, *settings)
                show_images(images, output / "validation" / f"step-{step}", accelerator.trackers, step)
            if step >= run.max_train_steps:
                break
        if batches == 0:
            raise UserError("dataset_name streams fewer rows than train_batch_size times processes; lower it")

    card = {}
    if watch and watch.judged:
        chosen, sentence, card["evaluation"] = watch.conclude(evals.load_best_model_at_end)
        logger.info(sentence)
        if chosen:
            accelerator.load_state(str(output / chosen))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        setattr(pipe, family.denoiser, accelerator.unwrap_model(denoiser))
        with averaged_weights(ema, trainable, denoiser):
            save_final(pipe, family, model, data, config, run, history.rows, **card)
        logger.info(f"Saved to {output}")
    accelerator.end_training()
    if accelerator.num_processes > 1:
        time.sleep(0.5)  # gloo's threads need Python's lock once more, or a CPU run can hang here


if __name__ == "__main__":
    with exit_on_user_error():
        groups = (ModelArguments, DataArguments, TPOConfig, TrainingArguments, EvaluationConfig, RunArguments)
        main(*HfArgumentParser(groups, description=__doc__).parse_args_into_dataclasses())
