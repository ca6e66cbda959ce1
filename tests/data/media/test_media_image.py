import struct
import warnings
import zlib

import media_files as made
import numpy as np
import pytest
from PIL import Image

from mmr_jax.data.media.errors import REASONS, MediaError
from mmr_jax.data.media.image import read_image


def reason(path, short_side=32):
    with pytest.raises(MediaError) as caught:
        read_image(path, short_side)
    assert caught.value.reason in REASONS
    return caught.value.reason


def quarters(height=64, width=96):
    """Red, green, blue and grey quarters, clockwise from the top left."""
    image = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    image[:top, :left], image[:top, left:] = [250, 10, 10], [10, 250, 10]
    image[top:, left:], image[top:, :left] = [10, 10, 250], 128
    return image


def save(folder, image, name="a.png", **options):
    image.save(folder / name, **options)
    return folder / name


def close(found, expected, within=4.0):
    assert np.abs(made.pixels(found.jpegs[0]) - np.asarray(expected).astype(int)).mean() < within


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.webp", "a.tif", "a.ppm"])
def test_formats(tmp_path, name):
    found = read_image(save(tmp_path, Image.fromarray(quarters()), name), 0, quality=95)
    close(found, quarters(), 5.0)  # some of them lose detail
    assert (found.height, found.width, found.times.tolist(), found.notes) == (64, 96, [0.0], ())
    assert found.times.dtype == np.float32


@pytest.mark.parametrize(("short_side", "size"), [(32, (32, 48)), (100, (100, 150)), (0, (64, 96)), (21, (21, 32))])
def test_sizes(tmp_path, short_side, size):
    found = read_image(save(tmp_path, Image.fromarray(quarters())), short_side)
    assert (found.height, found.width) == size == made.pixels(found.jpegs[0]).shape[:2]


def test_shrinking_averages(tmp_path):
    """Stripes one pixel wide become grey, not a pattern."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    image = made.pixels(read_image(save(tmp_path, Image.fromarray(stripes)), 16, 95).jpegs[0])
    assert np.abs(image - 127.5).max() < 12


@pytest.mark.parametrize("mode", ["P", "L", "1", "CMYK", "YCbCr"])
def test_modes(tmp_path, mode):
    image = Image.fromarray(quarters()).convert(mode, dither=Image.Dither.NONE)
    found = read_image(save(tmp_path, image, "a.jpg" if mode in ("CMYK", "YCbCr") else "a.png"), 0, 95)
    assert made.pixels(found.jpegs[0]).shape == (64, 96, 3)
    close(found, image.convert("RGB"))


def test_sixteen_bits(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    for name in ("a.png", "a.tif"):
        found = read_image(save(tmp_path, Image.fromarray(ramp), name), 0, 95)
        close(found, np.repeat((ramp / 257)[..., None], 3, 2), 2.0)


def test_floats_are_refused(tmp_path):
    assert reason(save(tmp_path, Image.fromarray(np.ones((8, 8), np.float32)), "a.tif")) == "undecodable"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path, mode):
    image = Image.fromarray(quarters()).convert("RGBA")
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[:32, :48] = 0
    image.putalpha(Image.fromarray(alpha))
    path = save(tmp_path, image.convert(mode) if mode != "P" else image.quantize(16), "a.png")
    found = read_image(path, 0, 95)
    shown = made.pixels(found.jpegs[0])
    assert np.abs(shown[4:28, 4:44] - 255).mean() < 3 and found.notes == ("transparent parts are white",)
    if mode != "LA":
        assert np.abs(shown[4:28, 52:92] - [10, 250, 10]).mean() < 6
    opaque = Image.fromarray(quarters()).convert("RGBA")
    assert read_image(save(tmp_path, opaque, "b.png"), 0).notes == ()


# What has to be done to a picture of each EXIF orientation, by the standard
ORIENTATIONS = {
    1: (lambda a: a, ()),
    2: (lambda a: a[:, ::-1], ("mirrored",)),
    3: (lambda a: a[::-1, ::-1], ("rotated 180",)),
    4: (lambda a: a[::-1], ("mirrored",)),
    5: (lambda a: a.swapaxes(0, 1), ("mirrored",)),
    6: (lambda a: np.rot90(a, -1), ("rotated 90",)),
    7: (lambda a: np.rot90(a, 2).swapaxes(0, 1), ("mirrored",)),
    8: (lambda a: np.rot90(a), ("rotated 270",)),
    9: (lambda a: a, ()),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, Image.fromarray(quarters()), "a.jpg", exif=exif, quality=95, subsampling=0)
    found, (turn, notes) = read_image(path, 0, 95), ORIENTATIONS[orientation]
    close(found, turn(quarters()), 6.0)
    assert found.notes == notes and (found.height, found.width) == turn(quarters()).shape[:2]


def test_damaged_exif(tmp_path):
    exif = b"Exif\0\0II*\0\xff\xff\xff\xffgarbage"
    found = read_image(save(tmp_path, Image.fromarray(quarters()), "a.jpg", exif=exif), 0, 95)
    close(found, quarters(), 6.0)


def test_several_pictures(tmp_path):
    first, second = Image.fromarray(quarters()), Image.fromarray(255 - quarters())
    found = read_image(save(tmp_path, first, "a.gif", save_all=True, append_images=[second]), 0)
    close(found, quarters(), 8.0)
    assert found.notes == ("several pictures, the first is used",)


def png_header(width, height):
    """The beginning of a PNG file that says how large it is, and 100 bytes of what follows."""
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (content, data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_header(folder, width, height):
    data = bytearray(save(folder, Image.fromarray(quarters()), "small.jpg").read_bytes())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("size", [(30000, 30000), (12000, 9000), (15000, 12000), (70000, 100)])
def test_pictures_that_are_too_large(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_header(*size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(tmp_path / "a.png") == "too large"
        if max(size) < 65536:
            (tmp_path / "a.jpg").write_bytes(jpeg_header(tmp_path, *size))
            assert reason(tmp_path / "a.jpg") == "too large"


def test_a_picture_that_becomes_too_large(tmp_path):
    assert reason(save(tmp_path, Image.new("RGB", (20000, 2))), 256) == "too large"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_truncated_pictures(tmp_path, name):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8))
    path = save(tmp_path, noise, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path) in {"a.tif": ("truncated", "undecodable", "not media")}.get(name, ("truncated",))


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    assert reason(tmp_path / "missing.jpg") == "missing file"
    assert reason(tmp_path / "empty.jpg") == "empty file"
    assert reason(tmp_path / "page.jpg") == "not media" == reason(tmp_path / "a.eps")
    assert reason(made.write_media(tmp_path / "video.jpg.mp4", made.steady(3))) == "not media"


def test_the_content_decides_not_the_name(tmp_path):
    path = save(tmp_path, Image.fromarray(quarters()), "a.png").rename(tmp_path / "a.mp4")
    close(read_image(path, 0, 95), quarters())


def test_nothing_but_media_errors_and_nothing_printed(tmp_path, capfd):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a.png", "a.jpg", "a.gif", "a.webp", "a.tif"):
            path = save(tmp_path, Image.fromarray(quarters()), name, **({"exif": exif} if name == "a.jpg" else {}))
            data = np.frombuffer(path.read_bytes(), np.uint8)
            for k in range(60):
                broken = data[: rng.integers(1, len(data) + 1)].copy()
                broken[rng.integers(0, min(len(broken), 200) if k % 2 else len(broken), 4)] = rng.integers(0, 256, 4)
                path.write_bytes(broken)
                try:
                    read_image(path, 32)
                except MediaError as error:
                    assert error.reason in REASONS
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not (made.REAL / "captioned_images/images").is_dir(), reason="no captioned images")
def test_real_pictures():
    for path in sorted((made.REAL / "captioned_images/images").iterdir())[:4]:
        found = read_image(path, 256)
        with Image.open(path) as image:
            plain = image.convert("RGB")
            assert min(found.height, found.width) == 256
            assert found.width / found.height == pytest.approx(plain.width / plain.height, abs=0.01)
            close(found, plain.resize((found.width, found.height), Image.Resampling.LANCZOS), 5.0)
