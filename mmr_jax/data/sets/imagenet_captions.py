"""ImageNet-Captions: images of ImageNet's training set with the title, description and tags they had on Flickr."""

from pathlib import Path

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Clip, Collector, Listing, label_set
from mmr_jax.data.sets.files import Media, find_media, need, one_label
from mmr_jax.errors import UserError
from mmr_jax.seeds import fold_seed

TITLE = "ImageNet-Captions"


def listing(labels: Path, media: Path) -> Listing:
    """Text sets "text" (the title) and "all" (title, description, tags); metric top-1 of the wnids that occur.

    The publisher has no splits: a digest of an image's name puts one in five into "test", the rest into "train".
    """
    path = need(labels, TITLE, "imagenet_captions.json")
    rows, intact = tables.read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} must be a list of images, each with filename, wnid, title, description and tags")
    found, collected = find_media(media), Collector()
    for number, row in enumerate(rows, 1):
        collected.add(_clip(row, f"{path} image {number}", found), path.name, number)
    notes = ("texts: MIT; the images belong to their photographers", "splits by a digest of the file name, 4 to 1")
    return Listing(
        name="imagenet_captions",
        title=TITLE,
        clips=collected.clips,
        modalities=("frames", "text"),
        label_sets={"labels": label_set(collected.clips, "labels", multilabel=False)},
        texts=("text", "all"),
        notes=notes if intact else (*notes, f"{path.name} is not UTF-8 throughout; read as latin-1 there"),
        problems=collected.problems,
    )


def _clip(row: dict, where: str, found: Media) -> Clip:
    filename, wnid = (tables.field(row, key, str, where) for key in ("filename", "wnid"))
    stem = Path(filename).stem
    title, description, tags = (row.get(key) or "" for key in ("title", "description", "tags"))
    if not isinstance(title, str) or not isinstance(description, str) or not isinstance(tags or [], list):
        raise UserError(f"{where}: title and description must be strings, tags a list of strings")
    every = " ".join(" ".join([title, description, *(str(tag) for tag in tags if tag)]).split())
    texts = {"text": (title.strip(),) if title.strip() else (), "all": (every,) if every else ()}
    split = "train" if fold_seed(0, "imagenet_captions", stem) % 5 else "test"
    media = found.get(stem, [f"{wnid}/{stem}.JPEG"])[0]
    return Clip(stem, split, media, texts=texts, labels={"labels": one_label(wnid)})
