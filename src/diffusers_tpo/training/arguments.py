"""The flags of the training script: names, defaults, ranges, help, and what does not go together. Knows nothing of what they do."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import torch
from accelerate.utils import LoggerType

from ..errors import UserError, require
from ..flags import AtLeastOne, NotNegative, NotNegativeNumber, PositiveNumber, Range, Share, flag, kinds_of
from ..principles import PRINCIPLES
from ..trainer import TPOConfig
from .watch import EvaluationConfig


Schedule = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
Weighting = Literal["none", "logit_normal", "mode", "sigma_sqrt", "cosmap"]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
BelowOne = Annotated[float, Range(at_least=0, below=1)]
Some = Annotated[int, Range(at_least=1, at_most=1000)]  # of what is kept in memory together
Side = Annotated[int, Range(at_least=1, at_most=2**15)]  # in pixels
Rank = Annotated[int, Range(at_least=1, at_most=2**15)]
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]


@dataclass
class ModelArguments:
    """The model."""

    pretrained_model_name_or_path: str = flag(help="Hub id or folder of a diffusers pipeline.")
    revision: str | None = flag(None, "Revision of the pipeline on the Hub.")
    variant: str | None = flag(None, "Variant of its weight files, such as fp16.")
    pretrained_vae_model_name_or_path: str | None = flag(None, "Another VAE.")
    prediction_type: Literal["epsilon", "v_prediction"] | None = flag(None, "If the scheduler's config is wrong.")
    max_sequence_length: AtLeastOne | None = flag(None, "Tokens of a prompt; the family's own number by default.")
    guidance_scale: NotNegativeNumber | None = flag(
        None, "What a guidance-distilled model is told while it trains; 1 by default."
    )
    use_lora: bool = flag(False, "Train LoRA weights instead of the whole denoiser.")
    rank: Rank = flag(16, "Rank of the LoRA.")
    lora_alpha: PositiveNumber | None = flag(None, "Scale of the LoRA times its rank; the rank itself by default.")
    lora_dropout: BelowOne = flag(0.0, "Dropout before the LoRA; the reference never sees it.")
    lora_layers: str | None = flag(None, "Comma-separated ends of layer names; attention layers by default.")
    use_dora: bool = flag(False, "Weight-decomposed LoRA.")
    train_text_encoder: bool = flag(False, "Train the text encoders too, as LoRA or in full like the denoiser.")
    load_in_4bit: bool = flag(False, "Hold the base of a LoRA in 4 bits (NF4); needs bitsandbytes and a GPU.")
    load_in_8bit: bool = flag(False, "Hold it in 8 bits.")
    bnb_quantization_config_path: str | None = flag(None, "JSON file of a BitsAndBytesConfig, instead of these two.")
    reference_dtype: Literal["no", "fp16", "bf16"] = flag("no", "Of the frozen copy in full training; no is float32.")
    reference_device: str | None = flag(None, "Of the frozen copy in full training, such as cpu.")

    def lora(self) -> dict | None:
        """What [`~diffusers_tpo.models.adapters.add_lora`] is given but for the layers; `None` in full training."""
        if not self.use_lora:
            return None
        return {"rank": self.rank, "alpha": self.lora_alpha, "dropout": self.lora_dropout, "use_dora": self.use_dora}

    def layers(self) -> list[str] | None:
        """The ends of layer names in `lora_layers`; `None` for the family's own."""
        return self.lora_layers.replace(" ", "").split(",") if self.lora_layers else None

    @property
    def is_quantized(self) -> bool:
        return self.load_in_4bit or self.load_in_8bit or self.bnb_quantization_config_path is not None


@dataclass
class DataArguments:
    """What it is trained on."""

    dataset_name: list[str] = flag([], "Hub id, or a local folder: imagefolder, parquet or save_to_disk; or several.")
    dataset_weights: list[PositiveNumber] = flag(
        [], "Shares of an epoch, one for each of several data sets; all rows of all without it."
    )
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
    num_mismatched: Some = flag(1, "Mismatched prompts per image and step.")
    hard_negatives: AtLeastOne | None = flag(
        None, "Draw from this number of each row's mismatched prompts, those that the reference confuses most."
    )
    max_train_samples: AtLeastOne | None = flag(None, "Use only the first rows, of each data set.")
    resolution: Side = flag(512, "Side of the square images in pixels.")
    use_aspect_ratio_buckets: bool = flag(False, "Batches of images of about the same shape instead of squares.")
    aspect_ratio_buckets: str | None = flag(None, "Their sizes as height,width;height,width; made from resolution.")
    center_crop: bool = flag(False, "Crop at the centre instead of at random.")
    random_flip: bool = flag(False, "Mirror half of the images; wrong for captions that say left or right.")
    on_bad_row: Literal["error", "skip"] = flag("error", "For rows that cannot be used; skipped ones are counted.")
    proportion_empty_prompts: Share = flag(0.0, "Share of prompts left empty; supervised fine-tuning only.")

    @property
    def sources(self) -> list[str]:
        """Hub ids or folders of the data sets."""
        return self.dataset_name or [str(self.train_data_dir)]


@dataclass
class TrainingArguments:
    """How each step is computed; a resumed run must keep these."""

    seed: Seed = flag(0, "Seed of every random number.")
    train_batch_size: AtLeastOne = flag(4, "Images per process and forward pass.")
    gradient_accumulation_steps: AtLeastOne = flag(1, "Forward passes per optimizer step.")
    mixed_precision: Literal["no", "fp16", "bf16"] = flag("no", "Of the forward passes; trained weights stay float32.")
    learning_rate: PositiveNumber = flag(1e-5, "Peak learning rate.")
    text_encoder_lr: PositiveNumber | None = flag(None, "Of the text encoders; the same by default.")
    scale_lr: bool = flag(False, "Multiply it by batch size, accumulation and processes.")
    lr_scheduler: Schedule = flag("constant_with_warmup", "Schedule of the learning rate.")
    lr_warmup_steps: NotNegative = flag(0, "Optimizer steps of warm-up.")
    lr_num_cycles: AtLeastOne = flag(1, "Of cosine_with_restarts.")
    lr_power: PositiveNumber = flag(1.0, "Of polynomial.")
    use_8bit_adam: bool = flag(False, "AdamW of bitsandbytes; needs a GPU.")
    adam_beta1: BelowOne = flag(0.9, "Of AdamW.")
    adam_beta2: BelowOne = flag(0.999, "Of AdamW.")
    adam_weight_decay: NotNegativeNumber = flag(1e-2, "Of AdamW.")
    adam_epsilon: PositiveNumber = flag(1e-8, "Of AdamW.")
    max_grad_norm: NotNegativeNumber = flag(1.0, "Gradients are clipped to this norm; 0: never.")
    use_ema: bool = flag(False, "Average the weights; validation and the final model use the average.")
    ema_decay: BelowOne = flag(0.9999, "Upper bound of the average's decay.")
    noise_offset: NotNegativeNumber = flag(0.0, "Offset noise; 0.05 to 0.1 where wanted.")
    snr_gamma: PositiveNumber | None = flag(None, "Min-SNR weighting of supervised fine-tuning; 5 is usual.")
    weighting_scheme: Weighting = flag("none", "How flow models draw or weigh their timesteps.")
    logit_mean: float = flag(0.0, "Of logit_normal.")
    logit_std: PositiveNumber = flag(1.0, "Of logit_normal.")
    mode_scale: Annotated[float, Range(at_least=-1, at_most=1.75)] = flag(1.29, "Of mode.")
    precompute_reference: bool = flag(False, "Compute the reference's errors once and keep them beside the encodings.")
    reference_draws: AtLeastOne = flag(8, "Draws of noise and timestep of each image with precompute_reference.")
    min_timestep: Share = flag(0.0, "Lowest timestep, as a share of all.")
    max_timestep: Share = flag(1.0, "Highest timestep, as a share of all.")

    def noising(self, loss_type: str) -> dict:
        """What [`~diffusers_tpo.add_noise`] is given."""
        return {
            "timestep_range": (self.min_timestep, self.max_timestep),
            "noise_offset": self.noise_offset,
            "snr_gamma": self.snr_gamma if loss_type == "sft" else None,
            "weighting_scheme": self.weighting_scheme,
            "logit_mean": self.logit_mean,
            "logit_std": self.logit_std,
            "mode_scale": self.mode_scale,
        }


@dataclass
class RunArguments:
    """How long it runs and what it leaves behind; a resumed run may change these."""

    output_dir: str = flag("tpo-model", "Where everything is written.")
    dry_run: bool = flag(False, "Load and check everything, say what would run, make one image, and stop.")
    num_train_epochs: AtLeastOne = flag(1, "Passes over the data set, unless max_train_steps is given.")
    max_train_steps: AtLeastOne | None = flag(None, "Optimizer steps.")
    gradient_checkpointing: bool = flag(False, "Less memory, more time.")
    offload: bool = flag(False, "Keep VAE and text encoders on the CPU while they are not needed.")
    cache_latents: bool = flag(False, "Encode every image once and keep that on disk.")
    cache_prompt_embeddings: bool = flag(False, "Encode every prompt once and keep that on disk.")
    encodings_dir: str | None = flag(None, "Where; shared by runs. diffusers_tpo in the cache of the Hub by default.")
    allow_tf32: bool = flag(False, "Faster float32 matrix products on Ampere and newer.")
    channels_last: bool = flag(False, "Lay images out as convolutions of a UNet like them.")
    torch_compile_backend: str | None = flag(None, "Compile the denoiser's repeated blocks, with inductor or another.")
    dataloader_num_workers: Annotated[int, Range(at_least=0, at_most=1000)] = flag(0, "Processes that read images.")
    cache_dir: str | None = flag(None, "Where downloads are kept.")
    collapse_bound: NotNegativeNumber = flag(
        0.2, "Alarm when the matched error lies this share above the reference's ..."
    )
    collapse_patience: NotNegative = flag(50, "... for this many steps in a row; 0 switches the alarm off.")
    collapse_action: Literal["warn", "stop"] = flag("warn", "What then; stop leaves a checkpoint.")
    nonfinite_patience: NotNegative = flag(
        10, "Stop after so many steps in a row without finite loss and gradient; 0 never."
    )
    checkpointing_steps: AtLeastOne = flag(500, "Optimizer steps between checkpoints.")
    checkpoints_total_limit: AtLeastOne | None = flag(None, "Keep only so many.")
    resume_from_checkpoint: str | None = flag(None, "A checkpoint's name, or latest.")
    validation_prompt: list[str] = flag([], "Prompts that are rendered on a schedule.")
    num_validation_images: Some = flag(4, "Images per prompt.")
    validation_steps: AtLeastOne = flag(100, "Optimizer steps between renders.")
    validation_guidance_scale: NotNegativeNumber = flag(7.5, "Guidance of these renders.")
    validation_inference_steps: AtLeastOne | None = flag(
        None, "Their sampling steps; the pipeline's own number by default."
    )
    export: list[Literal["kohya", "comfyui"]] = flag([], "Write the LoRA for other programs too, besides diffusers.")
    report_to: str = flag("tensorboard", "tensorboard, wandb, trackio, any tracker of accelerate, all or none.")
    logging_dir: str = flag("logs", "Folder of the trackers inside output_dir.")
    tracker_project_name: str = flag("text-preference-optimization", "Project name for the trackers.")
    push_to_hub: bool = flag(False, "Push the final model and its card.")
    base_model_name: list[str] = flag(
        [],
        "Name on the Hub that the card gives a local, quantised or distilled base; several if it comes from others.",
    )
    hub_strategy: Literal["end", "every_save"] = flag("end", "Or with every checkpoint the model so far.")
    hub_model_id: str | None = flag(None, "Where to; the name of output_dir under your account by default.")
    hub_private_repo: bool = flag(False, "Make a new repository private.")
    hub_revision: str | None = flag(None, "Branch to push to; made if it does not exist.")
    hub_token: str | None = flag(None, "Unsafe on a shared machine; `hf auth login` is better. Never stored.")


GROUPS = (ModelArguments, DataArguments, TPOConfig, TrainingArguments, EvaluationConfig, RunArguments)


def check_arguments(
    model: ModelArguments,
    data: DataArguments,
    tpo: TPOConfig,
    training: TrainingArguments,
    evals: EvaluationConfig,
    run: RunArguments,
) -> None:
    """Checks what goes together and can be said without loading anything.

    Raises:
        UserError: naming the flags that do not go together.
    """
    for group in (model, data, tpo, training, evals, run):
        check_texts(group)
    check_model(model, training, run)
    check_data(data, run)
    check_objective(tpo, training)
    check_kept(model, data, run)
    if training.precompute_reference:
        check_precompute(model, data, tpo)
    if data.hard_negatives is not None:
        check_hard_negatives(training)
    if evals.guide_with == "reference" and model.train_text_encoder:
        raise UserError(
            "--guide_with reference does not go with --train_text_encoder: the base would be told something else than before; "
            "leave one of the two out"
        )
    check_outputs(evals, run)


def check_texts(group: object) -> None:
    """Raises [`UserError`] for a text that says nothing: what is not wanted is left out."""
    for name, kind in kinds_of(group).items():
        value = getattr(group, name)
        if kind.type is str and isinstance(value, str) and not value.strip():
            raise UserError(f"--{name} is empty; give a value, or leave it out")


def check_model(model: ModelArguments, training: TrainingArguments, run: RunArguments) -> None:
    """Raises [`UserError`] for what this model, or this machine, cannot be trained with."""
    if run.export and not model.use_lora:
        raise UserError(f"--export {' '.join(run.export)} is for a LoRA; add --use_lora, or leave it out")
    if model.is_quantized and not model.use_lora:
        raise UserError("a quantised base cannot be trained itself: add --use_lora, or leave the quantisation out")
    if training.text_encoder_lr is not None and not model.train_text_encoder:
        raise UserError("--text_encoder_lr needs --train_text_encoder")
    if training.use_8bit_adam:
        require("bitsandbytes", extra="bnb")
        if not torch.cuda.is_available():
            raise UserError("--use_8bit_adam needs a CUDA GPU, and none is visible; leave it out")


def check_data(data: DataArguments, run: RunArguments) -> None:
    """Raises [`UserError`] for flags of the data set that do not go together."""
    if bool(data.dataset_name) == (data.train_data_dir is not None):
        raise UserError("give exactly one of --dataset_name and --train_data_dir")
    check_several(data)
    if data.streaming and run.max_train_steps is None:
        raise UserError("--streaming needs --max_train_steps, as a stream has no length")
    if data.streaming and run.dataloader_num_workers:
        raise UserError(f"--streaming needs --dataloader_num_workers 0, got {run.dataloader_num_workers}")
    if data.streaming and data.use_aspect_ratio_buckets:
        raise UserError("--streaming cannot group images for --use_aspect_ratio_buckets; leave one of the two out")
    if data.aspect_ratio_buckets and not data.use_aspect_ratio_buckets:
        raise UserError("--aspect_ratio_buckets needs --use_aspect_ratio_buckets")
    if wrong := [name for name in data.principles if name not in PRINCIPLES]:
        raise UserError(f"--principles must be among {', '.join(PRINCIPLES)}, got {', '.join(wrong)}")


def check_several(data: DataArguments) -> None:
    """Raises [`UserError`] for what does not go with several data sets, or with weights."""
    names, weights = data.dataset_name, data.dataset_weights
    if weights and len(weights) != len(names):
        raise UserError(
            f"--dataset_weights needs one weight for each --dataset_name, got {len(weights)} for {len(names)}"
        )
    if len(set(names)) < len(names):
        raise UserError(f"--dataset_name names a data set twice, got {', '.join(names)}; use --dataset_weights")
    if len(names) < 2:
        return
    for name in ("streaming", "dataset_config_name", "dataset_revision"):
        if getattr(data, name):
            raise UserError(f"--{name} is for one data set, and --dataset_name names {len(names)}; leave it out")
    if weights and data.use_aspect_ratio_buckets:
        raise UserError(
            "--dataset_weights takes other rows in each epoch, which --use_aspect_ratio_buckets cannot; leave one out"
        )


def check_objective(tpo: TPOConfig, training: TrainingArguments) -> None:
    """Raises [`UserError`] for timesteps and weights that do not suit the objective."""
    if training.min_timestep >= training.max_timestep:
        raise UserError(f"--min_timestep {training.min_timestep} must be below --max_timestep {training.max_timestep}")
    if training.weighting_scheme in ("sigma_sqrt", "cosmap") and tpo.loss_type != "sft":
        raise UserError(
            f"--weighting_scheme {training.weighting_scheme} weighs the error of --loss_type sft; use logit_normal or mode"
        )


def check_kept(model: ModelArguments, data: DataArguments, run: RunArguments) -> None:
    """Raises [`UserError`] for encodings that cannot be kept."""
    if run.cache_latents and (data.streaming or not data.center_crop):
        raise UserError("--cache_latents needs --center_crop, as other crops differ every time, and no --streaming")
    if run.cache_prompt_embeddings and (data.streaming or model.train_text_encoder):
        raise UserError(
            "--cache_prompt_embeddings goes neither with --streaming nor with --train_text_encoder; leave it out"
        )


def check_precompute(model: ModelArguments, data: DataArguments, tpo: TPOConfig) -> None:
    """Raises [`UserError`] for what `precompute_reference` does not go with."""
    if tpo.loss_type == "sft":
        raise UserError("--precompute_reference needs a reference, and --loss_type sft has none; leave it out")
    if data.streaming:
        raise UserError("--precompute_reference goes through the whole data set first and cannot with --streaming")
    if tpo.loss_type == "tkto" and tpo.tkto_baseline == "shuffled":
        asked = "asks the reference about other prompts at every step"
        raise UserError(f"--tkto_baseline shuffled {asked}, so --precompute_reference cannot know; use batch_mean")
    if model.reference_dtype != "no" or model.reference_device is not None:
        raise UserError(
            "--reference_dtype and --reference_device are of a copy that --precompute_reference does without; leave them out"
        )


def check_hard_negatives(training: TrainingArguments) -> None:
    """Raises [`UserError`] if the reference's errors of all mismatched prompts are not at hand, with their noise."""
    if not training.precompute_reference:
        raise UserError(
            "--hard_negatives asks the reference about every mismatched prompt; add --precompute_reference"
        )
    if training.reference_draws < 2:
        raise UserError(f"--hard_negatives needs --reference_draws of at least 2, got {training.reference_draws}")


def check_outputs(evals: EvaluationConfig, run: RunArguments) -> None:
    """Raises [`UserError`] for checkpoints, trackers and repositories that do not go together."""
    logs = Path(run.logging_dir)
    if logs.is_absolute() or ".." in logs.parts or not logs.parts:
        raise UserError(f"--logging_dir must name a folder inside of --output_dir, got {run.logging_dir!r}")
    trackers = [str(tracker) for tracker in LoggerType] + ["none"]
    if run.report_to not in trackers:
        raise UserError(f"--report_to must be one of {', '.join(trackers)}, got {run.report_to!r}")
    if evals.load_best_model_at_end and evals.eval_steps and evals.eval_steps % run.checkpointing_steps:
        needed = f"a multiple of --checkpointing_steps {run.checkpointing_steps}"
        raise UserError(f"--load_best_model_at_end needs --eval_steps to be {needed}, got {evals.eval_steps}")
    for name in run.base_model_name:
        if not HUB_ID.fullmatch(name):
            raise UserError(f"--base_model_name names models on the Hub, as in owner/name, got {name!r}")
    if not run.push_to_hub:
        for name in ("hub_strategy", "hub_private_repo", "hub_revision"):
            default = next(one.default for one in fields(run) if one.name == name)
            if getattr(run, name) != default:
                raise UserError(f"--{name} needs --push_to_hub")


def check_schedule(training: TrainingArguments, last_step: int) -> None:
    """Raises [`UserError`] for a warm-up that does not end before the run, or that the schedule has not."""
    warmup = training.lr_warmup_steps
    if warmup and training.lr_scheduler == "constant":
        raise UserError("--lr_warmup_steps needs a schedule with a warm-up; use --lr_scheduler constant_with_warmup")
    if warmup >= last_step and warmup:
        raise UserError(
            f"--lr_warmup_steps must be less than the {last_step} optimizer steps of the run, got {warmup}"
        )
