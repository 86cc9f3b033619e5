"""The ledger in object storage as well, so that an archive starts from an empty volume."""
