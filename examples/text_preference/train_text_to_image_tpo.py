#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo"]
# ///
r"""Fine-tunes a text-to-image model with Text Preference Optimization (https://huggingface.co/papers/2509.25771).

    python train_text_to_image_tpo.py \
        --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-v1-5 \
        --dataset_name your-name/hpsd-tpo-negatives --use_lora --loss_type tdpo --mixed_precision fp16 \
        --train_batch_size 4 --gradient_accumulation_steps 4 --max_train_steps 500 --output_dir sd15-tpo

README.md in examples/text_preference explains every group of flags.
"""

import dataclasses
from pathlib import Path

import torch
from accelerate.logging import get_logger
from diffusers.optimization import get_scheduler
from huggingface_hub.constants import HF_HOME

from diffusers_tpo import TPOConfig, TPOTrainer, add_noise
from diffusers_tpo.commands.parsing import parse_flags, write_config
from diffusers_tpo.data.batch import SkippedRows
from diffusers_tpo.data.buckets import check_sides, choose_buckets
from diffusers_tpo.data.dataset import as_torch_dataset, mixed_dataset
from diffusers_tpo.data.fingerprint import fingerprint_rows
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, check_columns, load_rows
from diffusers_tpo.errors import UserError, exit_on_user_error, require
from diffusers_tpo.families.tokens import TokenReader
from diffusers_tpo.guidance import check_guide_with
from diffusers_tpo.image_files import PartFiles, files_of
from diffusers_tpo.losses import denoising_error
from diffusers_tpo.models.loading import refuse_own_base
from diffusers_tpo.models.precision import HALF
from diffusers_tpo.models.recipe import ModelRecipe
from diffusers_tpo.publish.model_card import hardware
from diffusers_tpo.publish.origins import dataset_origin, model_origin
from diffusers_tpo.training.alarms import Alarms, CollapseAlarm, FaultAlarm
from diffusers_tpo.training.arguments import (
    GROUPS,
    DataArguments,
    ModelArguments,
    RunArguments,
    TrainingArguments,
    check_arguments,
    check_schedule,
)
from diffusers_tpo.training.encoding import Encoder
from diffusers_tpo.training.folder import CONFIG, RunFolder
from diffusers_tpo.training.hard_negatives import SET_ASIDE, keep_hardest, list_set_aside
from diffusers_tpo.training.identity import Identity
from diffusers_tpo.training.interrupts import StopRequest
from diffusers_tpo.training.loader import PlacedLoader
from diffusers_tpo.training.outputs import Card, Release
from diffusers_tpo.training.progress import Progress
from diffusers_tpo.training.reference import KnownReference
from diffusers_tpo.training.session import Session
from diffusers_tpo.training.step import Stepper
from diffusers_tpo.training.summary import Plan, as_lines
from diffusers_tpo.training.trained import TrainedModels
from diffusers_tpo.training.validation import REHEARSAL, Gallery, Validation
from diffusers_tpo.training.watch import EvaluationConfig, make_watch


logger = get_logger(__name__)


def main(
    model: ModelArguments,
    data: DataArguments,
    tpo: TPOConfig,
    training: TrainingArguments,
    evals: EvaluationConfig,
    run: RunArguments,
) -> None:
    """Checks the flags and trains in a folder that no other run writes to meanwhile."""
    check_arguments(model, data, tpo, training, evals, run)
    session = Session(
        Path(run.output_dir),
        training.mixed_precision,
        training.gradient_accumulation_steps,
        training.seed,
        run.report_to,
        run.logging_dir,
        run.allow_tf32,
    )
    with RunFolder(Path(run.output_dir), session.accelerator.is_main_process) as folder:
        train(session, folder, model, data, tpo, training, evals, run)
    session.leave()


def train(  # noqa: C901 - the whole story of a run, from top to bottom
    session: Session,
    folder: RunFolder,
    model: ModelArguments,
    data: DataArguments,
    tpo: TPOConfig,
    training: TrainingArguments,
    evals: EvaluationConfig,
    run: RunArguments,
) -> None:
    # Where it runs, and whether it goes on. What would fail at the end, as a wrong token, is known here.
    accelerator = session.accelerator
    output = folder.path
    recipe = ModelRecipe.from_flags(dataclasses.asdict(model) | dataclasses.asdict(training))
    refuse_own_base(recipe, output)
    checkpoint = folder.find_start(run.resume_from_checkpoint)
    release = Release.of(
        output,
        accelerator,
        run.hub_model_id,
        run.hub_revision,
        run.hub_token,
        run.hub_private_repo,
        will_push=run.push_to_hub,
        formats=run.export,
        logging_dir=run.logging_dir,
    )

    # What it learns from, what every checkpoint is asked, and what learns.
    needs_reference = tpo.loss_type != "sft"
    dataset = load_dataset(data, tpo.loss_type, training, run)
    watch = load_watch(evals, data, training.seed, run, session)
    models = TrainedModels.load(
        recipe,
        accelerator,
        needs_reference or evals.guide_with == "reference",
        reference_is_known=training.precompute_reference and evals.guide_with != "reference",
        reference_dtype=HALF[model.reference_dtype],
        reference_device=model.reference_device,
        offload=run.offload,
        cache_dir=run.cache_dir,
        token=run.hub_token,
    )
    if tpo.holds_empty:
        models.check_empty_prompt()
    check_guide_with(evals.guide_with, models.pipe, models.reference)
    for format in run.export:
        models.exported(format)  # which says now, and not at the end, what a format cannot hold
    models.speed_up(run.gradient_checkpointing, run.channels_last, run.torch_compile_backend)

    # Who it is, by all that its numbers depend on: what it goes on from must be its own.
    base = model_origin(model.pretrained_model_name_or_path, model.revision, run.cache_dir, run.hub_token)
    base = base.called(run.base_model_name)
    sources = [dataset_origin(name, data.dataset_revision) for name in data.sources]
    weights = session.from_main(lambda: recipe.identity(run.cache_dir, run.hub_token))
    rows = session.from_main(lambda: fingerprint_rows(dataset, sources[0].name, sources[0].commit))
    identity = Identity.of(model, data, tpo, training, weights | rows, accelerator.num_processes)
    progress = Progress(output, checkpoint, identity, recipe, accelerator, run.checkpoints_total_limit)

    # How rows and models meet: images and prompts as the models take them, encoded while training or kept before.
    fit_sizes(dataset, data, models.side_multiple)
    tokens = TokenReader(models.pipe, models.family)
    dataset.tell_apart(tokens)
    encoder, encodings = Encoder.of(models), Path(run.encodings_dir or Path(HF_HOME) / "diffusers_tpo")
    if run.cache_latents and not run.dry_run:
        encoder.keep_images(dataset, encodings, training.train_batch_size)
    if run.cache_prompt_embeddings and not run.dry_run:
        empty = [""] if tpo.holds_empty else []
        encoder.keep_prompts(dataset.prompts() + empty, encodings, training.train_batch_size)
    noising, known = training.noising(tpo.loss_type), None
    if training.precompute_reference:
        besides = (
            noising,
            training.seed,
            training.mixed_precision,
            run.allow_tf32,
            data.center_crop,
            data.random_flip,
        )
        kept_share = tpo.null_share if tpo.null_keep else 0.0
        known = KnownReference(encoder.reference_folder(encodings, models.scheduler, *besides), dataset, kept_share)

    # How it learns, and what it asks of the base while the weights are still the base's.
    trainer = TPOTrainer(tpo, models.family, models.reference)
    optimizer = models.prepare(
        make_optimizer(models, training, accelerator.num_processes),
        accelerator,
        ema_decay=training.ema_decay if training.use_ema else None,
    )

    def noise(batch):
        """The images of a batch, noised the same for each of their prompts."""
        latents = encoder.encode_images(batch)
        return add_noise(models.scheduler, latents, batch.draws, **noising).repeat(
            batch.prompts_per_image, batch.num_empty
        )

    asked = TPOTrainer(tpo, models.family, models.as_reference())

    def base_answer(batch):
        noised = noise(batch)
        with accelerator.autocast():
            cond, ref_cond = encoder.encode_prompts(batch, needs_reference)
            told = cond if ref_cond is None else ref_cond
            prediction = asked.reference_prediction(models.denoiser, noised, told)
        return {"error": denoising_error(prediction, noised.target), "prediction": prediction}

    in_table = {
        "answer_of": base_answer,
        "batch_size": training.train_batch_size * (1 + data.num_mismatched),
        "may_compute": not session.is_sharded,
    }
    if known and data.hard_negatives and not run.dry_run:
        with models.at_rest(whole=False):
            known.fill_all(**in_table)
        aside = keep_hardest(dataset, known, data.hard_negatives)
        if accelerator.is_main_process:
            list_set_aside(aside, output / SET_ASIDE)

    # In which batches, and how it steps.
    loader = PlacedLoader(
        dataset,
        training.train_batch_size,
        training.gradient_accumulation_steps,
        accelerator,
        run.dataloader_num_workers,
        tpo.empty_share,
    )
    last_step = run.max_train_steps or run.num_train_epochs * loader.steps_per_epoch
    check_schedule(training, last_step)
    progress.aim_at(last_step, training.lr_scheduler)
    stepper = Stepper(
        models.trainable,
        optimizer,
        make_schedule(optimizer, training, last_step),
        accelerator,
        training.max_grad_norm,
        models.average,
        models.text,
    )
    alarms = Alarms(
        CollapseAlarm(run.collapse_bound, run.collapse_patience),
        FaultAlarm(run.nonfinite_patience),
        stops_at_collapse=run.collapse_action == "stop",
    )
    skipped = SkippedRows()

    # What it is about to do; a rehearsal reads a batch, makes one image and ends here.
    plan = Plan(models, loader, progress.step, last_step, training.use_8bit_adam)
    facts = plan.data(prompts_per_image(data, tpo.loss_type), training.train_batch_size) | tokens.about_cut()
    facts |= plan.learning(needs_reference, known is not None) | plan.memory()
    facts |= plan.disk(output, run.checkpointing_steps, run.checkpoints_total_limit)
    logger.info(f"***** Running training *****\n{as_lines(facts)}")
    validation = Validation(
        run.validation_prompt,
        run.num_validation_images,
        run.validation_guidance_scale,
        data.resolution,
        training.seed,
        run.validation_inference_steps,
        evals.guide_with,
    )
    if run.dry_run:
        batch, _ = next(loader.after(progress.place))
        with accelerator.autocast():
            noise(batch)
            encoder.encode_prompts(batch, needs_reference)
        prompt = (run.validation_prompt or batch.prompts)[0]
        rehearsal = dataclasses.replace(validation, prompts=[prompt], images_per_prompt=1)
        Gallery(rehearsal, models, session, output / REHEARSAL, batch_size=1).show(progress.step)
        logger.info(f"Nothing was trained; {output / REHEARSAL} has an image of the base. Train without --dry_run")
        return

    # Where it begins: as the base, which is judged and rendered.
    if known:
        with models.at_rest(whole=False):
            known.fill(loader.epochs(progress.place.epoch, last_step), **in_table)
    if watch:
        with models.at_rest(), accelerator.autocast():
            watch.begin(models, progress.step, weights)
    session.track(run.tracker_project_name, identity.public())
    gallery = Gallery(validation, models, session, output / "validation", evals.eval_batch_size)
    gallery.show_base(is_resumed=checkpoint is not None)
    if accelerator.is_main_process:
        if checkpoint is None:
            folder.make_room()
        groups = (model, data, tpo, training, evals, run)
        write_config(output / CONFIG, *groups, left_out=("hub_token", "resume_from_checkpoint"))
    progress.begin(stepper=stepper, alarms=alarms)
    card = Card(
        identity.public(),
        base,
        sources,
        {
            "images per step": loader.rows_of_batch * training.gradient_accumulation_steps,
            "rows of the data set": "streamed" if data.streaming else len(dataset),
            "hardware": hardware(accelerator.device, accelerator.num_processes),
        },
    )

    with StopRequest() as request:
        for batch in progress.batches(loader):
            with accelerator.accumulate(models.denoiser):
                noised = noise(batch)
                ref_error = known.errors(batch, accelerator.device) if known else None
                ref_empty = known.empty_predictions(batch, accelerator.device) if known and tpo.null_keep else None
                with accelerator.autocast():  # for the reference too, so that it starts with the policy's errors
                    cond, ref_cond = encoder.encode_prompts(batch, needs_reference)
                    loss, metrics = trainer.tpo_loss(
                        models.denoiser, noised, cond, batch.is_matched, ref_cond, ref_error, ref_empty
                    )
                metrics |= models.text_metrics(cond, ref_cond, len(batch.draws), batch.prompts_per_image)
                if data.on_bad_row == "skip":
                    metrics |= skipped.metrics(batch)
                stepper.backward(loss, metrics, rows=[draw.row for draw in batch.draws])
            if not accelerator.sync_gradients:
                continue

            # One optimizer step: clipped, taken or skipped; the device is read once.
            result = stepper.step(request.came)
            progress.advance()
            row = result.metrics
            if watch and progress.step % evals.eval_steps == 0:
                with models.at_rest(), accelerator.autocast():
                    row |= watch.judge(f"checkpoint-{progress.step}", models)
            progress.write(row)
            accelerator.log(row, step=progress.step)

            # All processes agree on an ending, and nothing ends without a checkpoint.
            ending = alarms.hear(progress.step, result)
            if result.is_asked_to_stop:
                ending = request.ending()
            if ending or progress.is_done or progress.step % run.checkpointing_steps == 0:
                progress.save(keep=watch.best() if watch else None)
                if run.hub_strategy == "every_save" and not ending and not progress.is_done:
                    with models.at_rest():
                        release.save(models, progress.log.rows, card.with_told(progress.told(progress.step)))
                    release.push_so_far()
            if ending:
                session.stop(progress.step, ending)
            if progress.step % run.validation_steps == 0 and not progress.is_done:  # the last step is shown below
                gallery.show(progress.step)

    # What it leaves: the last weights, or those of the best checkpoint.
    final = progress.step
    if watch and watch.judged:
        best, sentence, evaluation = watch.conclude(evals.load_best_model_at_end)
        logger.info(sentence)
        card = dataclasses.replace(card, evaluation=evaluation)
        if best:
            final = progress.return_to(best)
    gallery.show(final)
    accelerator.wait_for_everyone()
    card = dataclasses.replace(
        card,
        pictures=gallery.side_by_side(final, output / "assets"),
        guidance_scale=run.validation_guidance_scale if run.validation_prompt else None,
        guide_with=evals.guide_with,
    )
    with models.at_rest():
        release.save(models, progress.log.rows, card.with_told(progress.told(final)))
    logger.info(f"Saved to {output}")
    accelerator.end_training()
    if run.push_to_hub:
        release.push()


def columns_of(data: DataArguments) -> Columns:
    return Columns(
        image=data.image_column,
        prompt=data.caption_column,
        mismatched=data.negative_prompts_column,
        principles=data.principles_column,
        label=data.label_column,
    )


def load_dataset(data: DataArguments, loss_type: str, training: TrainingArguments, run: RunArguments):
    """The rows that it is trained on, checked."""
    parts = [
        load_rows(
            name,
            data.dataset_config_name,
            data.dataset_split,
            data.dataset_revision,
            data.streaming,
            run.cache_dir,
            run.hub_token,
            argument="dataset_name" if data.dataset_name else "train_data_dir",
        )
        for name in data.sources
    ]
    columns, names = columns_of(data), data.sources
    unpaired = [check_columns(rows, columns, loss_type, name) for rows, name in zip(parts, names, strict=True)]
    files = [files_of(name, run.hub_token) for name in names]
    reader = RowReader(
        columns,
        loss_type,
        unpaired=unpaired[0],
        seed=training.seed,
        resolution=data.resolution,
        center_crop=data.center_crop,
        random_flip=data.random_flip,
        num_mismatched=data.num_mismatched,
        principles=tuple(data.principles),
        proportion_empty_prompts=data.proportion_empty_prompts,
        on_bad_row=data.on_bad_row,
        draws=training.reference_draws if training.precompute_reference else None,
        files=PartFiles(tuple(files)) if len(names) > 1 else files[0],
    )
    if len(names) > 1:
        return mixed_dataset(parts, names, reader, data.max_train_samples, data.dataset_weights)
    return as_torch_dataset(parts[0], reader, data.max_train_samples)


def prompts_per_image(data: DataArguments, loss_type: str) -> int:
    """How many prompts of an image a step sees, where they come in pairs."""
    return 1 if loss_type == "sft" else 1 + data.num_mismatched


def fit_sizes(dataset, data: DataArguments, multiple: int) -> None:
    """Lets the data set cut crops whose sides, in pixels, are multiples of what the model needs."""
    if data.use_aspect_ratio_buckets:
        dataset.reader.buckets = choose_buckets(data.aspect_ratio_buckets, data.resolution, multiple)
    else:
        check_sides([(data.resolution, data.resolution)], multiple)


def load_watch(evals: EvaluationConfig, data: DataArguments, seed: int, run: RunArguments, session: Session):
    """What every checkpoint is asked, `None` for nothing."""
    if evals.eval_steps is None:
        return None
    if session.is_sharded:
        raise UserError("--eval_steps does not go with FSDP; judge the checkpoints with evaluate.py afterwards")
    trained_on = data.sources[0]
    if len(data.sources) > 1 and not evals.eval_dataset_name:
        raise UserError("--eval_steps needs --eval_dataset_name where --dataset_name names several data sets")
    name = evals.eval_dataset_name or trained_on
    rows = load_rows(
        name,
        None if evals.eval_dataset_name else data.dataset_config_name,
        evals.eval_split,
        None if evals.eval_dataset_name else data.dataset_revision,
        cache_dir=run.cache_dir,
        token=run.hub_token,
        argument="eval_dataset_name",
    )
    return make_watch(
        evals,
        rows,
        columns_of(data),
        data.resolution,
        seed,
        Path(run.output_dir) / "evaluation",
        str(session.accelerator.device),
        cache_dir=run.cache_dir,
        token=run.hub_token,
        dataset=name,
        files=files_of(name, run.hub_token),
        is_trained_on=(name, evals.eval_split) == (trained_on, data.dataset_split),
    )


def make_optimizer(models: TrainedModels, training: TrainingArguments, processes: int) -> torch.optim.Optimizer:
    """AdamW, in 8 bits where asked."""
    scale = 1
    if training.scale_lr:
        scale = training.gradient_accumulation_steps * training.train_batch_size * processes
    groups = models.parameter_groups(training.learning_rate, training.text_encoder_lr)
    for group in groups:
        group["lr"] *= scale
    options = {
        "betas": (training.adam_beta1, training.adam_beta2),
        "weight_decay": training.adam_weight_decay,
        "eps": training.adam_epsilon,
    }
    if training.use_8bit_adam:
        return require("bitsandbytes.optim", extra="bnb").AdamW8bit(groups, **options)
    return torch.optim.AdamW(groups, **options, fused=True)


def make_schedule(optimizer, training: TrainingArguments, last_step: int):
    """The schedule of the learning rate of a prepared optimizer, which counts optimizer steps of all processes together."""
    return get_scheduler(
        training.lr_scheduler,
        optimizer.optimizer,
        num_warmup_steps=training.lr_warmup_steps,
        num_training_steps=last_step,
        num_cycles=training.lr_num_cycles,
        power=training.lr_power,
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(*GROUPS, description=__doc__))
