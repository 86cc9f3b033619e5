"""Witnesses of the ledger, asked over C2SP tlog-witness: who else has seen that it only grew."""
