"""The operator's loop, the ``governed`` command and the local runner."""
