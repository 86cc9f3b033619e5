"""The Merkle log of one archive: tree, tiles, entries, streams, ids, checkpoints."""
