"""Reading real media: sound, frames and pictures of one file each, every failure one `MediaError`. No jax in here."""

import importlib
from types import ModuleType

from mmr_jax.errors import UserError


def require(module_name: str, extra: str) -> ModuleType:
    """The module `module_name`, which the optional dependencies `extra` bring; UserError where it cannot be loaded."""
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{module_name} cannot be loaded ({reason}); install it: pip install -e .[{extra}]") from None
