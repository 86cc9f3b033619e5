"""The namespace's archive: ledger, blobs, keysets, references; its client, and verification by anyone."""
