"""The three ways in which a run ends early, and the nearest-name hint for what is misspelt."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input or configuration: one line that says what is wrong, what was expected and what to do.

    The command line prints the line and exits with code 2; library callers may catch it as ValueError.
    """


class Diverged(Exception):
    """Several steps in a row had a loss or gradient that is not finite (exit code 3)."""


class Interrupted(Exception):
    """The run was asked to stop and has saved; repeat the command to go on (exit code 75: requeue)."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint `; did you mean X?` (or the allowed names) for an unknown `name`."""
    allowed = [str(a) for a in allowed]
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(allowed))}"
