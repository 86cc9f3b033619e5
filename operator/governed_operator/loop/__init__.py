"""The reconcile loop: wake-ups, queue, observe, apply, status."""
