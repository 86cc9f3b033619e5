"""What can go wrong on one machine; each message is the one line that a person sees."""


class LocalError(Exception):
    """The run can't start or go on."""


class PortTaken(LocalError):
    """Something else listens on a port that a container needs."""


class StaleRun(LocalError):
    """Processes of an earlier run are still there."""


class JobFailed(LocalError):
    """A Job used up its retries, or failed for good."""


class NotReady(LocalError):
    """A pod crash-loops, or its probes fail beyond their patience."""
