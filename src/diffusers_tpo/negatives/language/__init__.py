"""Words, grammar and vocabulary that editors and checks share."""
