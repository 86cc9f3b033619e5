"""Recomputes a ledger from what is held, exported or served."""
