"""The test run itself: what is deprecated must not be used here; in other packages it does not matter."""

import warnings

import pytest


def _use(module):
    exec("import warnings; warnings.warn('old', DeprecationWarning, stacklevel=1)", {"__name__": module})


def test_a_deprecation_in_this_package_fails_a_test():
    for module in ("mmr_jax", "mmr_jax.models.encoder"):
        with pytest.raises(DeprecationWarning, match="old"):
            _use(module)


def test_a_deprecation_elsewhere_does_not():
    with warnings.catch_warnings(record=True) as found:
        _use("other.package")
    assert found == []
