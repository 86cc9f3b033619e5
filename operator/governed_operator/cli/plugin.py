"""``kubectl governed …``: the same commands, for models of the cluster that kubectl speaks to.

https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/: kubectl runs the program ``kubectl-governed``.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from typer.core import TyperGroup

from governed_operator.cli.fail import fail

__all__ = ["with_context"]

PLACES = ("--namespace", "-n", "--context", "--url", "--workdir", "--file", "--help")
"""Options that say where something is, or that nothing is asked of it."""


def with_context(root: TyperGroup, words: Sequence[str]) -> list[str]:
    """``words`` with the kubeconfig's current context, where a command of ``root`` takes one and nothing in them says
    another place: neither an option nor a file. Ends the command where kubectl has none."""
    group, rest = root, list(words)
    command = None
    while rest and command is None and (found := group.commands.get(rest.pop(0))) is not None:
        if isinstance(found, TyperGroup):
            group = found
        else:
            command = found
    takes = command is not None and any("--context" in option.opts for option in command.params)
    if not takes or any(word.partition("=")[0] in PLACES or word.startswith("-n") for word in rest):
        return list(words)
    if any(not word.startswith("-") and Path(word).exists() for word in rest):
        return list(words)
    return [*words[: len(words) - len(rest)], f"--context={_current()}", *rest]


def _current() -> str:
    try:
        done = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True, check=False)
    except OSError as error:
        fail(f"kubectl: {error.strerror}; install it, or name the place: governed COMMAND --workdir")
    if done.returncode or not done.stdout.strip():
        why = " ".join(done.stderr.split())[:500] or "it names none"
        fail(f"kubectl config current-context: {why}; choose one: kubectl config use-context NAME")
    return done.stdout.strip()
