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
import logging
import math
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration, PartialState
from accelerate.logging import get_logger
from accelerate.utils import DistributedType, ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from huggingface_hub.constants import HF_HOME
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from diffusers_tpo import TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.data.batch import SkippedRows, collate
from diffusers_tpo.data.buckets import check_sides, choose_buckets
from diffusers_tpo.data.dataset import as_torch_dataset, batches_from
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, check_columns, load_rows
from diffusers_tpo.errors import UserError, exit_on_user_error, require
from diffusers_tpo.families import family_of, side_multiple
from diffusers_tpo.models.adapters import add_lora, register_average, register_hooks
from diffusers_tpo.models.checkpoints import (
    TrainingLog,
    check_config,
    check_length,
    find_checkpoint,
    load_state,
    read_state,
    save_checkpoint,
)
from diffusers_tpo.models.loading import bnb_config, fingerprint, load_pipeline, speed_up
from diffusers_tpo.models.text_encoders import train_text_encoders
from diffusers_tpo.privacy import public_config
from diffusers_tpo.publish.hub import ATTEMPTS, own_name, push_folder
from diffusers_tpo.publish.model_card import hardware, training_facts
from diffusers_tpo.publish.origins import dataset_origin, model_origin
from diffusers_tpo.training.alarms import CollapseAlarm, FaultAlarm, finite_step, offending_rows
from diffusers_tpo.training.arguments import (
    DataArguments,
    ModelArguments,
    RunArguments,
    TrainingArguments,
    check_arguments,
)
from diffusers_tpo.training.encoding import Encoder
from diffusers_tpo.training.interrupts import StopRequest, ignore_ctrl_c
from diffusers_tpo.training.outputs import save_model
from diffusers_tpo.training.reference import KnownReference, epochs_of
from diffusers_tpo.training.validation import Validation, averaged_weights
from diffusers_tpo.training.watch import EvaluationConfig, make_watch


logger = get_logger(__name__)
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHOWN = ("loss", "reward/matched", "reward/margin", "reward/accuracy")


def columns_of(data: DataArguments) -> Columns:
    names = (data.image_column, data.caption_column, data.negative_prompts_column, data.principles_column)
    return Columns(*names, label=data.label_column)


def load_data(data: DataArguments, loss_type: str, args: TrainingArguments, run: RunArguments):
    source = {"config": data.dataset_config_name, "split": data.dataset_split, "revision": data.dataset_revision}
    options = {"streaming": data.streaming, "cache_dir": run.cache_dir, "token": run.hub_token}
    rows = load_rows(data.dataset_name or data.train_data_dir, **source, **options)
    columns = columns_of(data)
    unpaired = check_columns(rows, columns, loss_type)
    pixels = {"resolution": data.resolution, "center_crop": data.center_crop, "random_flip": data.random_flip}
    prompts = {"num_mismatched": data.num_mismatched, "principles": tuple(data.principles)}
    prompts |= {"proportion_empty_prompts": data.proportion_empty_prompts, "on_bad_row": data.on_bad_row}
    draws = args.reference_draws if args.precompute_reference else None
    reader = RowReader(columns, loss_type, unpaired, args.seed, draws=draws, **pixels, **prompts)
    return as_torch_dataset(rows, reader, data.max_train_samples)


def load_watch(evals: EvaluationConfig, data: DataArguments, seed: int, run: RunArguments, device):
    """What every checkpoint is asked, `None` for nothing."""
    if evals.eval_steps is None:
        return None
    own = {} if evals.eval_dataset_name else {"config": data.dataset_config_name, "revision": data.dataset_revision}
    name = evals.eval_dataset_name or data.dataset_name or data.train_data_dir
    options = {"cache_dir": run.cache_dir, "token": run.hub_token}
    rows = load_rows(name, split=evals.eval_split, argument="eval_dataset_name", **own, **options)
    is_trained_on = (name, evals.eval_split) == (data.dataset_name or data.train_data_dir, data.dataset_split)
    options |= {"dataset": name, "is_trained_on": is_trained_on}
    folder = Path(run.output_dir) / "evaluation"
    return make_watch(evals, rows, columns_of(data), data.resolution, seed, folder, str(device), **options)


def load_base(model: ModelArguments, half: torch.dtype, run: RunArguments):
    """Frozen weights may be in half precision; a full pipeline is saved as it was loaded, in float32."""
    kind = (model.revision, model.variant, model.pretrained_vae_model_name_or_path)
    dtype = {"vae": torch.float32, "default": half} if model.use_lora else torch.float32
    bits = (model.load_in_4bit, model.load_in_8bit, model.bnb_quantization_config_path)
    options = {"cache_dir": run.cache_dir, "token": run.hub_token, "quantization": bnb_config(*bits, half)}
    return load_pipeline(model.pretrained_model_name_or_path, *kind, dtype, **options)


def make_optimizer(groups: list[dict], args: TrainingArguments, processes: int):
    scale = args.gradient_accumulation_steps * args.train_batch_size * processes if args.scale_lr else 1
    groups = [group | {"lr": group.get("lr", args.learning_rate) * scale} for group in groups]
    options = {"betas": (args.adam_beta1, args.adam_beta2), "weight_decay": args.adam_weight_decay}
    options |= {"eps": args.adam_epsilon}
    if args.use_8bit_adam:
        return require("bitsandbytes.optim", extra="bnb").AdamW8bit(groups, **options)
    return torch.optim.AdamW(groups, **options, fused=True)


def push(run: RunArguments, attempts: int = ATTEMPTS) -> None:
    """Pushes what lies in `output_dir`; call it on the main process."""
    options = {"private": run.hub_private_repo, "revision": run.hub_revision, "ignored": (f"{run.logging_dir}/*",)}
    url = push_folder(Path(run.output_dir), run.hub_model_id, run.hub_token, attempts=attempts, **options)
    logger.info(f"Pushed to {url}")


def push_so_far(run: RunArguments, name: str, *parts, **card) -> None:
    """Writes the model of this moment and pushes it; training goes on if that fails. Call it on every process."""
    save_model(Path(run.output_dir), name, *parts, **card)
    try:
        if PartialState().is_main_process:
            push(run, attempts=1)
    except UserError as error:
        logger.warning(f"training goes on, and the next checkpoint is pushed again: {error}")


def main(model: ModelArguments, data: DataArguments, tpo: TPOConfig, args: TrainingArguments, evals, run):
    check_arguments(model, data, tpo, args, evals, run)
    output = Path(run.output_dir)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if run.report_to == "none" else run.report_to,
        project_config=ProjectConfiguration(project_dir=run.output_dir, logging_dir=str(output / run.logging_dir)),
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
    )
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    for name in ("httpx", "httpx2", "matplotlib", "accelerate.accelerator", "accelerate.checkpointing"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if run.push_to_hub and accelerator.is_main_process:  # a wrong token is known before training
        run.hub_model_id = own_name(run.hub_model_id or output.resolve().name, run.hub_token)
    set_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = run.allow_tf32
    is_sharded = accelerator.distributed_type == DistributedType.FSDP  # every pass is one of all processes together
    if is_sharded and evals.eval_steps:
        raise UserError("eval_steps does not go with FSDP; judge the checkpoints with evaluate.py afterwards")
    dataset = load_data(data, tpo.loss_type, args, run)
    watch = load_watch(evals, data, args.seed, run, accelerator.device)
    config = public_config(*map(asdict, (model, data, tpo, args)), {"num_processes": accelerator.num_processes})

    # The models: what is trained stays float32, and so do most VAEs, because half precision overflows.
    needs_reference, half = tpo.loss_type != "sft", DTYPES[args.mixed_precision]
    pipe = load_base(model, half, run)
    source = dataset_origin(data.dataset_name or data.train_data_dir, data.dataset_revision)
    base = model_origin(model.pretrained_model_name_or_path, model.revision, run.cache_dir, run.hub_token)
    card = {"base": base, "data": source, "training": config, "branch": run.hub_revision}
    family = family_of(pipe, max_sequence_length=model.max_sequence_length, guidance_scale=model.guidance_scale)
    scheduler = training_scheduler(pipe.scheduler, model.prediction_type)
    if model.use_lora and not pipe.vae.config.get("force_upcast", True):  # its author says that half precision will do
        pipe.vae.to(half)
    denoiser, trainer, text = getattr(pipe, family.denoiser), TPOTrainer(), None
    trainer.tpo, trainer.family = tpo, family
    multiple = side_multiple(pipe, family)
    if data.use_aspect_ratio_buckets:
        dataset.reader.buckets = choose_buckets(data.aspect_ratio_buckets, data.resolution, multiple)
    else:
        check_sides([(data.resolution, data.resolution)], multiple)
    lora = model.lora()
    if lora:
        layers = model.lora_layers.replace(" ", "").split(",") if model.lora_layers else family.lora_targets
        add_lora(denoiser, layers, **lora)
    else:
        if needs_reference and not args.precompute_reference:
            place = {"device": model.reference_device or accelerator.device, "dtype": DTYPES[model.reference_dtype]}
            trainer.reference = copy.deepcopy(denoiser).to(**place)
        denoiser.requires_grad_(True)
    if model.train_text_encoder:
        text = train_text_encoders(pipe, family, lora, needs_reference)
    encoder = Encoder(pipe, family, accelerator.device, run.offload, text)
    encodings = Path(run.encodings_dir or Path(HF_HOME) / "diffusers_tpo")
    if run.cache_latents:
        encoder.keep_images(dataset, encodings, args.train_batch_size)
    if run.cache_prompt_embeddings:
        encoder.keep_prompts(dataset.prompts(), encodings, args.train_batch_size)
    noising, known = args.noising(tpo.loss_type), None
    if args.precompute_reference:
        facts = (noising, args.seed, args.mixed_precision, data.center_crop, data.random_flip)
        known = KnownReference(encoder.reference_folder(encodings, scheduler, *facts), dataset)
    register_hooks(accelerator, model.use_lora, text.modules() if text else {})
    denoiser.train()
    if run.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    for module in filter(None, (denoiser, trainer.reference)):
        speed_up(module, run.channels_last, run.torch_compile_backend)
    groups = [{"params": [parameter for parameter in denoiser.parameters() if parameter.requires_grad]}]
    if text:
        groups.append({"params": text.parameters(), "lr": args.text_encoder_lr or args.learning_rate})

    # A pass over the data must not draw from the global generator, or dropout would differ after resuming.
    options = {"collate_fn": collate, "num_workers": run.dataloader_num_workers, "generator": torch.Generator()}
    options |= {"worker_init_fn": ignore_ctrl_c, "pin_memory": accelerator.device.type == "cuda"}
    if data.streaming:
        loader = DataLoader(dataset, args.train_batch_size, drop_last=True, **options)
    else:
        with accelerator.main_process_first():  # which reads the sizes of all images
            batches = dataset.batches(args.train_batch_size)
        if batches.left_out:
            logger.info(f"{batches.left_out} rows lie in buckets with fewer rows than a batch and are left out")
        loader = DataLoader(dataset, batch_sampler=batches, **options)
    optimizer = make_optimizer(groups, args, accelerator.num_processes)
    denoiser, optimizer, loader = accelerator.prepare(denoiser, optimizer, loader)
    trained = (denoiser, *(text.modules().values() if text else ()))
    trainable = [parameter for module in trained for parameter in module.parameters() if parameter.requires_grad]
    ema = EMAModel(trainable, decay=args.ema_decay) if args.use_ema else None
    if ema:
        register_average(accelerator, ema)
    if not data.streaming:
        if len(loader) == 0:
            raise UserError(f"train_batch_size times processes exceeds the {len(dataset)} rows; lower it")
        steps_per_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
        run.max_train_steps = run.max_train_steps or run.num_train_epochs * steps_per_epoch
    shape = {"num_cycles": args.lr_num_cycles, "power": args.lr_power, "num_training_steps": run.max_train_steps}
    schedule = get_scheduler(args.lr_scheduler, optimizer.optimizer, num_warmup_steps=args.lr_warmup_steps, **shape)

    # Where to begin.
    checkpoint = find_checkpoint(output, run.resume_from_checkpoint) if run.resume_from_checkpoint else None
    state = {"step": 0, "epoch": 0, "batches": 0, "collapse": 0, "faults": (0, 0)}
    if checkpoint:
        state = read_state(checkpoint)
        check_config(checkpoint, config)
        check_length(state, args.lr_scheduler, run.max_train_steps)

    def noise(batch):
        latents = encoder.encode_images(batch)
        return add_noise(scheduler, latents, batch.draws, **noising).repeat(batch.prompts_per_image)

    def reference_error(batch):
        noised = noise(batch)
        with accelerator.autocast():
            cond, ref_cond = encoder.encode_prompts(batch, needs_reference)
            return trainer.reference_error(denoiser, noised, cond if ref_cond is None else ref_cond)

    if known:
        # The policy is still the reference.
        trainer.reference = None if model.use_lora else accelerator.unwrap_model(denoiser)
        length = (state["epoch"], run.max_train_steps, args.gradient_accumulation_steps, accelerator.num_processes)
        sizes = {"batch_size": args.train_batch_size * (1 + data.num_mismatched), "may_compute": not is_sharded}
        with averaged_weights(None, trainable, *trained):  # for their evaluation mode
            known.fill(epochs_of(batches, *length), reference_error, **sizes)
        trainer.reference = None
    if watch:
        # The weights are still the base's.
        with averaged_weights(None, trainable, *trained), encoder.whole_pipeline(), accelerator.autocast():
            watch.begin(pipe, scheduler, state["step"], fingerprint(model.pretrained_model_name_or_path))
    accelerator.init_trackers(run.tracker_project_name, {k: str(v) for k, v in config.items()})
    settings = (run.num_validation_images, run.validation_guidance_scale, data.resolution, args.seed)
    validation = Validation(run.validation_prompt, *settings, run.validation_inference_steps)

    def show(step: int, ema=None) -> None:
        if validation.prompts and (accelerator.is_main_process or is_sharded):
            with averaged_weights(ema, trainable, *trained), encoder.whole_pipeline(), accelerator.autocast():
                images = validation.render(pipe, evals.eval_batch_size, may_halve=not is_sharded)
            if accelerator.is_main_process:
                validation.show(images, output / "validation" / f"step-{step}", accelerator.trackers, step)

    if checkpoint is None or not validation.is_in(output / "validation" / "step-0"):
        show(0)
    if checkpoint:
        load_state(checkpoint, accelerator)
        schedule.load_state_dict(state["schedule"])
        logger.info(f"Resuming from {checkpoint.name}")
    step = state["step"]
    history = TrainingLog(output / "training_log.jsonl", step, accelerator.is_main_process)
    collapse = CollapseAlarm(run.collapse_bound, run.collapse_patience, state["collapse"])
    faults = FaultAlarm(run.nonfinite_patience, *state["faults"])
    hidden, started = not accelerator.is_main_process, time.monotonic()
    progress = tqdm(initial=step, total=run.max_train_steps, desc=tpo.loss_type, disable=hidden)
    parts = (pipe, denoiser, family, text.modules() if text else {}, model.use_lora, history.rows)
    name = run.hub_model_id or output.resolve().name

    def facts(weights_of: int) -> dict[str, object]:
        images = args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
        return {
            **training_facts(state["step"], step, time.monotonic() - started, weights_of),
            "images per step": images,
            "rows of the data set": "streamed" if data.streaming else len(dataset),
            "hardware": hardware(accelerator.device, accelerator.num_processes),
        }

    waiting, skipped = [], SkippedRows()
    places = batches_from(state, dataset, loader, accelerator)
    with StopRequest() as request:
        for place, batch in places if step < run.max_train_steps else ():
            with accelerator.accumulate(denoiser):
                noised, ref_error = noise(batch), known.errors(batch, accelerator.device) if known else None
                with accelerator.autocast():  # for the reference too, so that it starts with the policy's errors
                    cond, ref_cond = encoder.encode_prompts(batch, needs_reference)
                    loss, metrics = trainer.tpo_loss(denoiser, noised, cond, batch.is_matched, ref_cond, ref_error)
                if text:
                    metrics |= text.metrics(cond, ref_cond, batch.prompts_per_image)
                if data.on_bad_row == "skip":
                    metrics |= skipped.metrics(batch)
                waiting.append((metrics, [draw.row for draw in batch.draws]))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    if text:
                        text.average_gradients()
                    step_parts = (accelerator, optimizer, trainable, args.max_grad_norm, waiting, request)
                    row, is_finite, must_stop = finite_step(*step_parts)
                optimizer.zero_grad()
            if not accelerator.sync_gradients:
                continue

            step += 1
            schedule.step()
            if not is_finite:
                numbers = f"loss {row['loss']}, gradient norm {row['grad_norm']}"
                logger.warning(f"Step {step} is skipped: {numbers}, rows {offending_rows(waiting)}")
            elif ema:
                ema.step(trainable)
            stops = faults.update(not is_finite)
            row = {"lr": schedule.get_last_lr()[0], **row, "skipped_steps": faults.total}
            row = {name: value for name, value in row.items() if math.isfinite(value)}
            waiting = []
            if watch and step % evals.eval_steps == 0:
                with averaged_weights(ema, trainable, *trained), encoder.whole_pipeline(), accelerator.autocast():
                    row |= watch.judge(f"checkpoint-{step}", pipe, scheduler)
            history.append(step, row)
            accelerator.log(row, step=step)
            progress.update()
            progress.set_postfix({name: f"{row[name]:.4g}" for name in SHOWN if name in row}, refresh=False)

            reason, code = str(faults) if stops else "", 1
            if collapse.update(row.get("reward/matched_relative", 0.0)):
                logger.warning(collapse)
                reason = str(collapse) if run.collapse_action == "stop" else reason
            if must_stop:  # a signal may reach some processes only
                reason, code = "a signal came", 128 + (request.number or signal.SIGTERM)
            if step % run.checkpointing_steps == 0 or reason:
                counts = {"collapse": collapse.steps_below, "faults": (faults.in_a_row, faults.total)}
                history.sync()
                keep = watch.best() if watch else None
                position = {"step": step, **place, **counts, "config": config}
                position |= {"schedule": schedule.state_dict(), "length": run.max_train_steps}
                save_checkpoint(output, position, accelerator, limit=run.checkpoints_total_limit, keep=keep)
                if run.hub_strategy == "every_save" and step < run.max_train_steps and not reason:
                    with averaged_weights(ema, trainable, *trained):
                        push_so_far(run, name, *parts, **card, facts=facts(weights_of=step))
            if reason:
                accelerator.end_training()
                rest = f"checkpoint-{step} goes on with --resume_from_checkpoint latest"
                accelerator.print(f"\nstopped at step {step}: {reason}; {rest}", file=sys.stderr)
                sys.exit(code)
            if step % run.validation_steps == 0 and step < run.max_train_steps:  # the final model is shown below
                show(step, ema)
            if step >= run.max_train_steps:
                break
    chosen = None
    if watch and watch.judged:
        chosen, sentence, card["evaluation"] = watch.conclude(evals.load_best_model_at_end)
        logger.info(sentence)
        if chosen:
            load_state(output / chosen, accelerator)
    final = int(chosen.removeprefix("checkpoint-")) if chosen else step
    show(final, ema)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and validation.prompts:
        steps = [output / "validation" / f"step-{number}" for number in (0, final)]
        card["pictures"] = validation.side_by_side(*steps, output / "assets")
        card["guidance_scale"] = run.validation_guidance_scale
    card["facts"] = facts(weights_of=final)
    with averaged_weights(ema, trainable, *trained):
        save_model(output, name, *parts, **card)
    logger.info(f"Saved to {output}")
    accelerator.end_training()
    if run.push_to_hub and accelerator.is_main_process:
        push(run)
    if accelerator.num_processes > 1:
        time.sleep(0.5)  # gloo's threads need Python's lock once more, or a CPU run can hang here


if __name__ == "__main__":
    with exit_on_user_error():
        groups = (ModelArguments, DataArguments, TPOConfig, TrainingArguments, EvaluationConfig, RunArguments)
        main(*HfArgumentParser(groups, description=__doc__).parse_args_into_dataclasses())
