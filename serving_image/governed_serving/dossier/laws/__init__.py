"""Laws as data: packs of rows, what counts as evidence for each, and the judgement over a dossier."""
