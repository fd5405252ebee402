"""Text Preference Optimization: align text-to-image diffusion models from captions alone."""

from .noising import Draw, Noised, add_noise, training_scheduler
from .trainer import TPOConfig, TPOTrainer


__version__ = "0.1.0"
__all__ = ["Draw", "Noised", "TPOConfig", "TPOTrainer", "add_noise", "training_scheduler"]
