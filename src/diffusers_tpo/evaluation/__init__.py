"""How good a model is: its own judgement of prompts, and comparisons with intervals. Knows nothing of training."""

from .implicit import error_matrix, prefers_matched
from .intervals import Interval, mean_interval, paired_difference


__all__ = ["Interval", "error_matrix", "mean_interval", "paired_difference", "prefers_matched"]
