"""The editor without a model: it changes words by rules."""
