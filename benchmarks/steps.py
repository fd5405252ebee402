"""Training steps that can be timed: ours, as the training script's loop takes it, and a plain one in the Diffusion-DPO style."""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch import Tensor

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.data.batch import Batch, num_empty
from diffusers_tpo.families import family_of
from diffusers_tpo.losses import denoising_error
from diffusers_tpo.models.adapters import adapters_off, add_lora
from diffusers_tpo.training.encoding import Encoder
from diffusers_tpo.training.step import Stepper
from diffusers_tpo.training.trained import FrozenParts


LEARNING_RATE = 1e-6
MAX_NORM = 1.0


class Bench:
    """A pipeline made ready for training, with its optimizer, and images to train it on.

    Args:
        images: per step.
        side: of the images, in pixels.
        folder: for kept prompt embeddings.
    """

    def __init__(self, pipe: DiffusionPipeline, use_lora: bool, images: int, side: int, folder: Path):
        self.accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
        self.pipe, self.family, self.folder = pipe, family_of(pipe), folder
        self.scheduler = training_scheduler(pipe.scheduler)
        self.denoiser = pipe.unet.to(self.accelerator.device)
        self.reference = None if use_lora else copy.deepcopy(self.denoiser).requires_grad_(False)
        if use_lora:
            with torch.random.fork_rng():
                torch.manual_seed(0)  # a loss away from the reference depends on the LoRA's first weights
                add_lora(self.denoiser, self.family.lora_targets)
        else:
            self.denoiser.requires_grad_(True)
        self.denoiser.train()
        self.parameters = [parameter for parameter in self.denoiser.parameters() if parameter.requires_grad]
        self.optimizer = self.accelerator.prepare(torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, fused=True))
        self.draws = [Draw(0, row) for row in range(images)]
        self.pixels = torch.rand(images, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def prompts(self, num_mismatched: int) -> list[str]:
        """Of all rows, in blocks."""
        kinds = ["red", "blue", "green", "white", "black"][: 1 + num_mismatched]
        return [f"a {kind} circle {row}" for kind in kinds for row in range(len(self.draws))]

    def perturb(self, scale: float) -> None:
        """Moves the policy away from the reference."""
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += scale * noise.to(parameter.device)


class Step:
    """One step as the training script's loop takes it, on the same rows each time.

    Args:
        objective: the fields of a [`TPOConfig`].
        num_mismatched: mismatched prompts of each image; none for supervised fine-tuning.
        kept: latents, prompt embeddings and the reference's errors are known before.
    """

    def __init__(self, bench: Bench, num_mismatched: int = 1, kept: bool = False, **objective):
        self.bench = bench
        self.trainer = TPOTrainer(TPOConfig(**objective), bench.family, bench.reference)
        schedule = torch.optim.lr_scheduler.ConstantLR(bench.optimizer.optimizer, factor=1.0)
        self.stepper = Stepper(bench.parameters, bench.optimizer, schedule, bench.accelerator, MAX_NORM)
        pixels, images = bench.pixels, len(bench.draws)
        prompts = bench.prompts(0 if self.trainer.tpo.loss_type == "sft" else num_mismatched)
        sizes = torch.tensor([[*pixels.shape[2:], 0, 0, *pixels.shape[2:]]] * images, dtype=torch.float32)
        self.encoder = Encoder(bench.pipe, bench.family, FrozenParts(bench.pipe, {"unet"}, bench.accelerator.device))
        is_matched, self.ref_error, self.ref_empty = torch.arange(len(prompts)) < images, None, None
        empty = num_empty(bench.draws, self.trainer.tpo.empty_share)
        self.batch = Batch(pixels, None, sizes, bench.draws, prompts, is_matched, empty)
        if kept:
            with torch.no_grad():
                encoded = tuple(part.cpu() for part in bench.family.encode_images(bench.pipe, pixels))
            self.batch = Batch(None, encoded, sizes, bench.draws, prompts, is_matched, empty)
            self.encoder.keep_prompts([*prompts, ""], bench.folder, images)
            if self.trainer.tpo.loss_type != "sft":
                noised, cond = self.rows()
                with bench.accelerator.autocast():
                    prediction = self.trainer.reference_prediction(bench.denoiser, noised, cond)
                prompted = noised.num_prompted
                self.ref_error = denoising_error(prediction[:prompted], noised.target[:prompted])
                self.ref_empty = prediction[prompted:]

    def rows(self):
        """Noised latents and conditioning of all rows."""
        latents = self.encoder.encode_images(self.batch)
        noised = add_noise(self.bench.scheduler, latents, self.batch.draws).repeat(
            self.batch.prompts_per_image, self.batch.num_empty
        )
        return noised, self.encoder.encode_prompts(self.batch, needs_reference=True)[0]

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        with self.bench.accelerator.autocast():
            given = {"is_matched": self.batch.is_matched, "ref_error": self.ref_error, "ref_empty": self.ref_empty}
            return self.trainer.tpo_loss(self.bench.denoiser, *self.rows(), **given)

    def __call__(self) -> None:
        loss, metrics = self.loss()
        self.stepper.backward(loss, metrics, [draw.row for draw in self.batch.draws])
        self.stepper.step()


class PlainStep:
    """The step of a plain preference training script: nothing is shared between the rows of an image, nothing is kept.

    Winner and loser are encoded as two images, the prompts at every step; policy and reference each see both rows. What makes its
    noise is given, so that its loss can be compared.
    """

    def __init__(self, bench: Bench, beta: float = 5000.0):
        self.bench, self.beta, self.images = bench, beta, len(bench.draws)
        self.prompts, device = bench.prompts(1), bench.accelerator.device
        side = bench.pixels.shape[2]
        self.sizes = torch.tensor(
            [[side, side, 0, 0, side, side]] * 2 * self.images, dtype=torch.float32, device=device
        )
        self.pixels = torch.cat([bench.pixels, bench.pixels]).to(device)
        with torch.no_grad():
            mean, _ = bench.family.encode_images(bench.pipe, bench.pixels[:1].to(device))
        shape = (1, *mean.shape[1:])
        self.posterior_noise = self._twice([torch.randn(shape[1:], generator=d.generator("vae")) for d in bench.draws])
        as_noise = training_scheduler(bench.pipe.scheduler, "epsilon")  # whose target is the noise itself
        known = add_noise(as_noise, torch.zeros(self.images, *shape[1:]), bench.draws)
        self.noise, self.timesteps = self._twice(known.target), self._twice(known.timesteps)
        self.optimizer = torch.optim.AdamW(bench.parameters, lr=LEARNING_RATE, fused=False)

    def _twice(self, rows) -> Tensor:
        return torch.cat([torch.stack(list(rows))] * 2).to(self.bench.accelerator.device)

    def loss(self) -> Tensor:
        bench, family = self.bench, self.bench.family
        with torch.no_grad():
            mean, std = family.encode_images(bench.pipe, self.pixels)
            cond = family.encode_prompts(bench.pipe, self.prompts) | family.encode_sizes(self.sizes)
        clean, scheduler = mean + std * self.posterior_noise, bench.scheduler
        latents, target = scheduler.add_noise(clean, self.noise, self.timesteps), self.noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(clean, self.noise, self.timesteps)
        with bench.accelerator.autocast():
            reference = self._reference_errors(latents, target, cond)
            policy = self._errors(bench.denoiser, latents, target, cond)
        (winner, loser), (ref_winner, ref_loser) = policy.chunk(2), reference.chunk(2)
        inside = -self.beta / 2 * ((winner - loser) - (ref_winner - ref_loser))
        return -F.logsigmoid(inside).mean()

    def _errors(self, denoiser, latents: Tensor, target: Tensor, cond) -> Tensor:
        prediction = self.bench.family.predict(denoiser, latents, self.timesteps, cond)
        return F.mse_loss(prediction.float(), target, reduction="none").mean(dim=(1, 2, 3))

    @torch.no_grad()
    def _reference_errors(self, latents: Tensor, target: Tensor, cond) -> Tensor:
        if self.bench.reference is not None:
            return self._errors(self.bench.reference, latents, target, cond)
        with adapters_off(self.bench.denoiser) as bare:
            return self._errors(bare, latents, target, cond)

    def __call__(self) -> None:
        self.bench.accelerator.backward(self.loss())
        torch.nn.utils.clip_grad_norm_(self.bench.parameters, MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
