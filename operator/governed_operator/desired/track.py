"""Tracks of traffic: stable and canary."""

from governed_api.names import GROUP

TRACK_LABEL = f"{GROUP}/track"
STABLE = "stable"
CANARY = "canary"
