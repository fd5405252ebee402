"""What a set of mismatched prompts is worth."""
