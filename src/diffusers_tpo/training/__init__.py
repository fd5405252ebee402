"""What a training script stands on, each usable in somebody else's."""
