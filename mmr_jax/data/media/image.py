"""Pictures as JPEG: one size, upright, RGB."""

import dataclasses
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmr_jax.data.media.errors import MediaError, check_file, guarded

MAX_PIXELS = 100_000_000
# Those that Pillow decodes itself; EPS, for one, is a program that another program runs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_LONGEST_SIDE = 65_500  # of a JPEG
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {3: "rotated 180", 6: "rotated 90", 8: "rotated 270"}


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames as JPEG, all [height, width]; `times` float32 [count] in seconds from the cut's start, may repeat."""

    jpegs: tuple[bytes, ...]
    times: np.ndarray
    height: int
    width: int
    notes: tuple[str, ...]


def read_image(path: str | Path, short_side: int, quality: int = 90) -> Frames:
    """The picture in `path`, upright, its shorter side resized to `short_side` pixels (0: as it is).

    Transparent parts become white; of several pictures the first is used. Raises MediaError for everything that is
    wrong with the file, and for more than MAX_PIXELS before any of them is decoded.
    """
    path = Path(path)
    with guarded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is noted or raised here
        check_file(path)
        try:
            with Image.open(path, formats=_FORMATS) as opened:
                check_size(*opened.size)
                image, notes = _upright(opened)
        except Image.DecompressionBombError as error:
            raise MediaError("too large", str(error)) from None
        except UnidentifiedImageError:
            raise MediaError("not media", f"no picture of the kinds {', '.join(_FORMATS)}") from None
        except OSError as error:
            cut = "truncated" if "truncated" in str(error).lower() else "undecodable"
            raise MediaError(cut, str(error)) from None
        image = rgb(image, notes)
        width, height = scaled(*image.size, short_side)
        jpeg = to_jpeg(image, (width, height), quality)
    return Frames((jpeg,), np.zeros(1, np.float32), height, width, tuple(notes))


def check_size(width: int, height: int) -> None:
    """Raises MediaError for more pixels than are decoded, or more in a row than a JPEG holds."""
    if width * height > MAX_PIXELS:
        raise MediaError("too large", f"{width} x {height} pixels; at most {MAX_PIXELS} are decoded")
    if max(width, height) > _LONGEST_SIDE:
        raise MediaError("too large", f"{width} x {height} pixels; a side has {_LONGEST_SIDE} at most")


def scaled(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) of the same aspect whose shorter one is `short_side`, or unchanged for 0."""
    if short_side:
        factor = short_side / min(width, height)
        width, height = max(1, round(width * factor)), max(1, round(height * factor))
    check_size(width, height)
    return width, height


def to_jpeg(image: Image.Image, size: tuple[int, int], quality: int) -> bytes:
    """`image` (RGB) resized to `size` (width, height) and encoded."""
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)  # Pillow's averages over all pixels when it shrinks
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """`image` of any mode as RGB of 8 bits; grows `notes`."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            notes.append("transparent parts are white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _upright(opened: Image.Image) -> tuple[Image.Image, list[str]]:
    notes = []
    if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":  # MPO: a JPEG with another view behind it
        notes.append("several pictures, the first is used")
    opened.load()
    try:
        turn = opened.getexif().get(_ORIENTATION, 1)
        image = ImageOps.exif_transpose(opened)
    except Exception:  # a damaged tag says nothing of the pixels
        return opened.copy(), [*notes, "damaged EXIF ignored"]
    if turn in range(2, 9):
        notes.append(_TURNS.get(turn, "mirrored"))
    return image, notes


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.kind == "f":
        raise MediaError("undecodable", "a picture of floating-point numbers, of no known range")
    if image.mode != "I" or values.max(initial=0) > 255:
        values = np.rint(np.clip(values, 0, 65535) / 257)  # 16 bits
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
