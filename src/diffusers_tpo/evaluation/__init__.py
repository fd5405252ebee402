"""How good a model is: its own judgement of prompts, and comparisons with intervals. Knows nothing of training."""
