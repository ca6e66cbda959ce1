"""Regular expressions over parameter paths, as `finetune.freeze` and `optim.groups` have them."""

import re
from collections.abc import Iterable

from mmr_jax.errors import UserError, nearest


def check_regex(field: str, pattern: str) -> None:
    """UserError if `pattern` is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise UserError(f"{field}: {pattern!r} is no regular expression: {error}") from None


def check_patterns(field: str, patterns: Iterable[str], paths: Iterable[str]) -> None:
    """UserError for a pattern that is found in none of `paths`: it would silently do nothing."""
    paths = list(paths)
    for pattern in patterns:
        check_regex(field, pattern)
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(f"{field}: {pattern!r} matches no parameter{nearest(pattern, paths)}")
