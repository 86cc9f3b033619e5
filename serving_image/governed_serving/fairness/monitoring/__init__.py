"""Drift, proxies, flips, alarms."""
