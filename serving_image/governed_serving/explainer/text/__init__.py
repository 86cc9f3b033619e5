"""Text as players: tokens, phrases and sentences that are masked, one or many at a time."""
