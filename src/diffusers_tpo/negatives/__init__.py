"""How mismatched prompts come to be: principles, editors, checks, resumable building, audit. Knows nothing of training."""
