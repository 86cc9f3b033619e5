"""The training Job of a governed model."""
