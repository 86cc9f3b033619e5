"""Tracks of traffic: stable and canary."""

from governed_api import runtime as rt
from governed_api.names import GROUP

TRACK_LABEL = f"{GROUP}/track"
STABLE = rt.TRACK_STABLE
CANARY = rt.TRACK_CANARY
