"""Opening containers of sound and video, by their content and never by their name."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from mmr_jax.data.media import require
from mmr_jax.data.media.errors import MediaError, check_file, describe

# Containers only: libav also opens play lists, which name other files, and pictures, which Pillow reads.
_FORMATS = (
    "mov,matroska,avi,wav,w64,aiff,au,caf,flac,ogg,mp3,aac,ac3,eac3,amr,wv,ape,tta,voc,nistsphere,"
    "mpegts,mpeg,flv,asf,rm,dv,mxf,ivf,nut,wtv,gif"
)
_STREAMED = 0x7FFF0000  # bytes: programs that do not know the length of what they write say about this or more


def open_container(path: Path) -> Any:
    """The PyAV container in `path`, to be closed by the caller; MediaError if it is not there or is none."""
    av = require("av", "media")
    check_file(path)
    av.logging.set_level(None)  # libav writes to stderr of every damaged packet; those are counted instead
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        # The scheme keeps a colon in a file's name from being read as one.
        return av.open(f"file:{path.absolute()}", container_options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if _lacks_index(path):
            raise MediaError("truncated", "an MP4 file without its index (moov)") from None
        raise MediaError("not media", describe(error)) from None


def tagged_end(metadata: dict[str, str]) -> Fraction | None:
    """The end in seconds that writers of Matroska note for each track as hours:minutes:seconds."""
    for key, value in metadata.items():
        found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", value.strip())
        if key.upper().startswith("DURATION") and found:
            hours, minutes, seconds = map(Fraction, found.groups())
            return hours * 3600 + minutes * 60 + seconds
    return None


def riff_shortfall(path: Path) -> Fraction:
    """How many times longer a WAV file says it is than it is; libav takes what is there for the whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
    declared = int.from_bytes(head[4:], "little") + 8
    known = head[:4] == b"RIFF" and declared < _STREAMED
    return Fraction(declared, size) if known and declared > size else Fraction(1)


def listing(streams: Any) -> str:
    """How many tracks of which kind there are, in words."""
    kinds = [s.type for s in streams]
    return ", ".join(f"{kinds.count(k)} {k}" for k in sorted(set(kinds))) or "no tracks"


def _lacks_index(path: Path) -> bool:
    """Whether `path` begins as an MP4 file does and ends before its moov box, which is often written last."""
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return False
        position, size = 0, path.stat().st_size
        while position + 8 <= size:
            file.seek(position)
            header = file.read(16)
            if header[4:8] == b"moov":
                return position + int.from_bytes(header[:4], "big") > size
            length = int.from_bytes(header[:4], "big")
            position += int.from_bytes(header[8:], "big") if length == 1 else (length or size)
            if length != 1 and length < 8:
                break
    return True
