"""An archive in one file: members, manifest, and the snapshot that fills them; ``restore`` beside it reads them."""
