"""Pure decisions: what should be, from what is."""
