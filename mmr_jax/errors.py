"""The three ways in which a run ends early, and the nearest-name hint for what is misspelt."""

import difflib
from collections.abc import Iterable

MANY = 16


class UserError(ValueError):
    """Bad input or configuration: one line that says what is wrong, what was expected and what to do.

    The command line prints the line and exits with code 2; library callers may catch it as ValueError.
    """


class Diverged(Exception):
    """Several steps in a row had a loss or gradient that is not finite (exit code 3)."""


class Interrupted(Exception):
    """The run was asked to stop and has saved; repeat the command to go on (exit code 75: requeue)."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint for an unknown `name`: `; did you mean X?`, or the allowed names, or the nearest of very many."""
    allowed = [str(a) for a in allowed]
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    if len(allowed) <= MANY:
        return f"; known: {', '.join(sorted(allowed))}"
    return f"; the nearest is {difflib.get_close_matches(name, allowed, n=1, cutoff=0.0)[0]!r}"
