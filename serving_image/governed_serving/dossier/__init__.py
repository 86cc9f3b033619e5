"""What a person reads: one page over report, artefact and verified ledger."""
