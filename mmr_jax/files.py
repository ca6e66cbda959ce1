"""Files that are there in full or not at all."""

import json
import os
from pathlib import Path

from mmr_jax.errors import UserError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write or replace `path` by one rename, so that whoever is cut off leaves the old file or the new one."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: object) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=1))


def read_json(path: str | Path) -> object:
    """What `write_json` wrote; UserError if the file is absent or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; delete it and run the command that writes it again") from None
