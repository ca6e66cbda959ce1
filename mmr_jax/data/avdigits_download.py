"""Fetching the public archives of FSDD and MNIST, each checked by its digest."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from mmr_jax.data import avdigits_raw as raw
from mmr_jax.errors import UserError

FSDD_URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.tar.gz"
FSDD_SHA256 = "45a9b976ba3397a2fd5c70a9f2e43c34f442a3a6be47392ecfc41174b678f37e"  # of sorted names and contents
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist"
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_TIMEOUT = 60  # seconds without an answer


def download(root: Path) -> None:
    """Fills `root` with fsdd/ and mnist/; what is there already stays."""
    root.mkdir(parents=True, exist_ok=True)
    for file, sha256 in MNIST_SHA256.items():
        _fetch_file(f"{MNIST_URL}/{file}", root / "mnist" / file, sha256)
    if not (root / raw.RECORDINGS).is_dir():
        _fetch_recordings(root / raw.RECORDINGS)


def _fetch_file(url: str, path: Path, sha256: str) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        _fetch(url, part)
        found = hashlib.sha256(part.read_bytes()).hexdigest()
        if found != sha256:
            raise UserError(f"{url} has sha256 {found}, expected {sha256}: damaged on the way, or another file")
        os.replace(part, path)


def _fetch_recordings(target: Path) -> None:
    """Only the clips that belong to the data set are taken from the archive, by name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    wanted = {f"{name}.wav" for name in raw.clip_names()}
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        archive, clips = Path(folder) / "fsdd.tar.gz", Path(folder) / "recordings"
        _fetch(FSDD_URL, archive)
        clips.mkdir()
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = Path(member.name).name
                    if member.isfile() and name in wanted and Path(member.name).parent.name == "recordings":
                        (clips / name).write_bytes(tar.extractfile(member).read())
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UserError(f"{FSDD_URL} is no intact archive: {error}") from error
        if recordings_digest(clips) != FSDD_SHA256:
            raise UserError(f"{FSDD_URL} does not hold the {len(wanted)} recordings that this data set is made of")
        if not target.is_dir():  # else another process was faster
            os.rename(clips, target)


def recordings_digest(folder: Path) -> str:
    """sha256 of the sorted names and contents of the files in `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _fetch(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise UserError(
            f"cannot download {url}: {error}; without a network, put the files in a folder and set --config.data.root"
        ) from error
