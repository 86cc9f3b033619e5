"""Pure statistics over counts: groups, inference, metrics, monitoring. NumPy alone; no I/O."""
