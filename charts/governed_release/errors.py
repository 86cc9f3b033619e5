"""What stops a release, or a look at one.

ReleaseError            a person must act; the message says what was expected, what was found and what to do
└── RegistryError       the registry refused, or couldn't be reached
"""


class ReleaseError(RuntimeError):
    """Nothing further was written; what had been pushed stays, and the same command goes on from there."""


class RegistryError(ReleaseError):
    """An answer of the registry, or none."""
