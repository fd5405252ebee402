"""Models and what is added to them: adapters, trained text encoders, checkpoints, loading."""
