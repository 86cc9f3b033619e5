"""What lies beside the ledger: blobs, keysets, references, states, retention."""
