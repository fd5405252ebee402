"""How good a model is: its own judgement of prompts, and comparisons with intervals. Knows nothing of training."""

from .implicit import ErrorMatrix, error_matrix, preference_values, prompt_divergence, retrieval_accuracy
from .intervals import Interval, bootstrap_interval, mean_interval, paired_difference, share_interval


__all__ = [
    "ErrorMatrix",
    "Interval",
    "bootstrap_interval",
    "error_matrix",
    "mean_interval",
    "paired_difference",
    "preference_values",
    "prompt_divergence",
    "retrieval_accuracy",
    "share_interval",
]
