"""The read-only web console of `governed console`."""
