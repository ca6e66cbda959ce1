"""How a video's frames are turned to stand upright."""

from typing import Any

import numpy as np
from PIL import Image

_TURNED = {(False, False, False): "", (False, True, True): "rotated 180"}  # by (swapped, x flipped, y flipped)
_TURNED |= {(True, True, False): "rotated 90", (True, False, True): "rotated 270"}


def turns(frame: Any) -> tuple[list[Image.Transpose], str]:
    """What the display matrix of `frame` says to do, as Pillow's steps, and a note of it (degrees clockwise).

    The matrix moves a pixel (x, y) to (a x + c y, b x + d y); only signed permutations are followed.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return [], ""
    a, b, _, c, d = (int(sign) for sign in np.sign(np.frombuffer(bytes(data), np.int32)[:5]))
    swapped = bool(b and c)
    if swapped == bool(a and d) or (a or d if swapped else b or c):
        return [], "rotated by no multiple of 90, left as it is"
    flip_x, flip_y = (c < 0, b < 0) if swapped else (a < 0, d < 0)
    steps = [
        (swapped, Image.Transpose.TRANSPOSE),
        (flip_x, Image.Transpose.FLIP_LEFT_RIGHT),
        (flip_y, Image.Transpose.FLIP_TOP_BOTTOM),
    ]
    return [step for wanted, step in steps if wanted], _TURNED.get((swapped, flip_x, flip_y), "mirrored")
