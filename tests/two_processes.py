"""What one of two processes does: a few steps of every family, with LoRA and in full, as accelerate wraps them."""

import copy

import tiny
import tiny_families
import tiny_pixart_sana
import torch
from accelerate import Accelerator

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.models.adapters import train_denoiser
from diffusers_tpo.models.recipe import LoraShape


def learn(accelerator: Accelerator, pipe, lora: LoraShape | None) -> float:
    """Two steps, and the sum of the weights; distributed training raises in the second if a weight got no gradient."""
    trainer = TPOTrainer(
        TPOConfig(beta=100, null_anchor=0.5, null_keep=1.0, null_share=0.5), tiny_families.short_family(pipe)
    )
    denoiser = copy.deepcopy(getattr(pipe, trainer.family.denoiser))
    if lora is None:
        trainer.reference = copy.deepcopy(denoiser)
    train_denoiser(denoiser, trainer.family, lora)
    trainable = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    wrapped, optimizer = accelerator.prepare(denoiser, torch.optim.AdamW(trainable, lr=1e-3))
    side, rank = tiny_families.call_flags(pipe)["height"], accelerator.process_index
    with torch.no_grad():
        sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(5, 1)
        cond = trainer.family.encode_prompts(pipe, ["cat", "dog", "a b", "c", ""]) | trainer.family.encode_sizes(sizes)
    for step in range(2):
        draws = [Draw(rank, row, step) for row in range(2)]
        latents = torch.randn(2, *tiny.LATENT, generator=torch.Generator().manual_seed(rank))
        noised = add_noise(training_scheduler(pipe.scheduler), latents, draws).repeat(2, num_empty=1)
        loss, _ = trainer.tpo_loss(wrapped, noised, cond, torch.tensor([True, True, False, False]))
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.free_memory(wrapped, optimizer)
    return sum(parameter.detach().double().sum().item() for parameter in trainable)


def main() -> None:
    accelerator = Accelerator(cpu=True)
    for name in tiny_families.MAKERS:
        pipe = tiny_families.make_pipe(name)
        for lora in (LoraShape(rank=2), None):
            if lora is None or name not in tiny_pixart_sana.NO_LORA:
                print(f"learnt {name} {'lora' if lora else 'full'}: {learn(accelerator, pipe, lora):.12g}", flush=True)
    accelerator.end_training()


if __name__ == "__main__":
    main()
