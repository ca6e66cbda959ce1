"""Images with five captions each and the objects in them: COCO's own annotations, or the same as captions.jsonl."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Clip, Collector, Label, Listing, label_set
from mmr_jax.data.sets.files import Media, find_media, need
from mmr_jax.errors import UserError

TITLE = "COCO captions"
FILES = ("captions.jsonl", "captions_train2017.json", "captions_val2017.json")
TEXTS = 5  # a few images have more; retrieval is measured with five


class _Image(NamedTuple):
    name: str
    split: str
    media: str
    texts: tuple[str, ...]
    categories: tuple[str, ...]
    line: int
    intact: bool


def listing(labels: Path, media: Path) -> Listing:
    """From captions.jsonl, else from captions_{split}.json with instances_{split}.json beside each; metric mAP.

    Splits are COCO's without the year. Texts are the first five of an image.
    """
    index, classes = labels / "captions.jsonl", None
    collected = Collector()
    if index.is_file():
        for image in _of_lines(index):
            collected.add(_clip(image), index.name, image.line, image.intact)
    else:
        found, names = find_media(media), {}
        for path in sorted(labels.glob("captions_*.json")) or [need(labels, TITLE, *FILES)]:
            for image in _of_coco(path, found, names):
                collected.add(_clip(image), path.name, image.line, image.intact)
        classes = [names[key] for key in sorted(names)]
    return Listing(
        name="captions",
        title=TITLE,
        clips=collected.clips,
        modalities=("frames", "text"),
        label_sets={"labels": label_set(collected.clips, "labels", classes, multilabel=True)},
        texts=("text",),
        notes=("annotations: COCO Consortium, CC BY 4.0; the images belong to their photographers",),
        problems=collected.problems,
    )


def _clip(image: _Image) -> Clip:
    labels = tuple(Label(name) for name in dict.fromkeys(image.categories))
    return Clip(image.name, image.split, image.media, texts={"text": image.texts}, labels={"labels": labels})


def _of_lines(path: Path) -> Iterator[_Image]:
    for row in tables.json_lines(path):
        where = f"{path} line {row.line}"
        file, split = (tables.field(row.cells, key, str, where) for key in ("file", "coco_split"))
        texts, categories = (tables.field(row.cells, key, list, where) for key in ("captions", "categories"))
        if not all(isinstance(item, str) for item in texts + categories):
            raise UserError(f"{where}: captions and categories must be lists of strings")
        yield _Image(Path(file).stem, _split(split), file, _texts(texts), tuple(categories), row.line, row.intact)


def _of_coco(path: Path, found: Media, names: dict[int, str]) -> Iterator[_Image]:
    """The images of one split; its categories are added to `names`, by id."""
    year = path.stem.removeprefix("captions_")
    texts, intact = _by_image(path, "caption")
    objects, _ = _by_image(need(path.parent, TITLE, f"instances_{year}.json"), "category_id")
    for category in objects["categories"]:
        where = f"instances_{year}.json: a category"
        names[tables.field(category, "id", int, where)] = tables.field(category, "name", str, where)
    for number, image in enumerate(texts["images"], 1):
        where = f"{path} image {number}"
        key, file = tables.field(image, "id", int, where), tables.field(image, "file_name", str, where)
        stem = Path(file).stem
        captions = [text for _, text in sorted(texts["by_image"].get(key, ()))]
        keys = sorted({c for _, c in objects["by_image"].get(key, ())})
        if not names.keys() >= set(keys):
            raise UserError(f"instances_{year}.json gives image {key} a category that it does not list")
        categories = tuple(names[c] for c in keys)
        media = found.get(stem, [f"{year}/{file}"])[0]
        yield _Image(stem, _split(year), media, _texts(captions), categories, number, intact)


def _by_image(path: Path, key: str) -> tuple[Mapping[str, Any], bool]:
    """COCO's annotations, with (annotation id, value of `key`) by image id as "by_image"; whether they were UTF-8."""
    value, intact = tables.read_json(path)
    images = tables.field(value, "images", list, str(path))
    by_image: dict[int, list] = {}
    for number, row in enumerate(tables.field(value, "annotations", list, str(path)), 1):
        where = f"{path} annotation {number}"
        item = tables.field(row, key, str if key == "caption" else int, where)
        image = tables.field(row, "image_id", int, where)
        by_image.setdefault(image, []).append((tables.field(row, "id", int, where), item))
    return {"images": images, "categories": value.get("categories", []), "by_image": by_image}, intact


def _texts(texts: list[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts if text.strip())[:TEXTS]


def _split(name: str) -> str:
    return re.sub(r"\d+$", "", name)
