"""Runs rendered pod templates as local processes."""
