"""The one exception that means "the input is wrong", and the nearest-name hint that goes with it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input or configuration: one line that says what is wrong, what was expected and what to do.

    The command line prints the line and exits with code 2; library callers may catch it as ValueError.
    """


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint `; did you mean X?` (or the allowed names) for an unknown `name`."""
    allowed = [str(a) for a in allowed]
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(allowed))}"
