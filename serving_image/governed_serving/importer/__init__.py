"""What an imported model can do: shown by running it through the server's own signature, journal and batching."""

from governed_serving.importer.trial import Trial, tried

__all__ = ["Trial", "tried"]
