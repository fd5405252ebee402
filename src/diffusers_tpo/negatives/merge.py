"""Merges sets of mismatched prompts: rows of the same image and caption become one. Knows nothing of editors or judges."""

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets import Dataset

from ..errors import UserError
from ..image_files import EMBEDDED
from .audit.blind_test import text_key
from .dataset import WRITE_BATCH, checked_texts, shard_files, stored_images, with_content, write_rows


JOINS = " + "  # between the names of several editors, or judges, of one row
LISTS = ("negative_prompts", "principles", "num_edits", "verdicts")


class Place(NamedTuple):
    """A row of one of the sets."""

    part: int
    row: int


def merge_sets(parts: dict[str, Dataset], folder: Path, rows_per_shard: int) -> tuple[int, int]:
    """Writes the rows of all sets. The mismatched prompts of equal rows are joined, and equal ones are kept once.

    A key that names different rows is preceded by the number of its set. Columns of verdicts stay if all sets have them.

    Args:
        parts: sets with the columns that [`build`] writes, by the names that messages show.
        folder: receives `data/train-*.parquet`.

    Returns:
        How many rows were written, and how many were joined to an earlier one.

    Raises:
        UserError: if a set is none, or some have images and some have not.
    """
    with_images = {name for name, rows in parts.items() if "image" in rows.column_names}
    if with_images and (without := parts.keys() - with_images):
        raise UserError(
            f"--merge: {min(without)!r} has no images and others have; give it some first, with --join_images"
        )
    if shard_files(folder):
        raise UserError(f"--output_dir {str(folder)!r} holds a data set already; merge into another one")
    texts = [checked_texts(rows, f"--merge: {name!r}") for name, rows in parts.items()]
    columns = [name for name in texts[0].column_names if all(name in one.column_names for one in texts)]
    images = [stored_images(rows, "image") for rows in parts.values()] if with_images else None

    groups: dict[tuple[str, str], list[Place]] = {}
    for part, rows in enumerate(texts):
        names = image_names(images[part]) if images else iter([""] * len(rows))
        for row, (image, prompt) in enumerate(zip(names, rows["prompt"], strict=True)):
            groups.setdefault((image, prompt), []).append(Place(part, row))
    keys = Counter(texts[first.part][first.row]["key"] for first, *_ in groups.values())

    places = list(groups.values())
    shards = -(-len(places) // rows_per_shard)
    for shard in range(shards):
        batch = places[shard * rows_per_shard : (shard + 1) * rows_per_shard]
        merged = [merged_row([texts[place.part][place.row] for place in group]) for group in batch]
        for row, (first, *_) in zip(merged, batch, strict=True):
            if keys[row["key"]] > 1:
                row["key"] = f"{first.part + 1}/{row['key']}"
        path = Path(folder) / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet"
        firsts = [group[0] for group in batch]
        write_rows(path, {name: [row[name] for row in merged] for name in columns}, images_at(images, firsts))
    return len(places), sum(map(len, texts)) - len(places)


def image_names(images: Dataset) -> Iterator[str]:
    """The content of every image as a short text."""
    for batch in images.iter(WRITE_BATCH):
        for cell in batch["image"]:
            content = with_content(cell, "of --merge", EMBEDDED)
            yield sha256((content or {}).get("bytes") or b"").hexdigest()


def images_at(images: list[Dataset] | None, places: list[Place]) -> Dataset | None:
    """The images of some rows, in their order."""
    if images is None:
        return None
    starts = [0]
    for part in images:
        starts.append(starts[-1] + len(part))
    return datasets.concatenate_datasets(images).select([starts[place.part] + place.row for place in places])


def merged_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of rows about the same image and caption, with every mismatched prompt once."""
    merged = dict(rows[0])
    lists = [name for name in LISTS if all(name in row for row in rows)]
    edits: dict[str, tuple] = {}
    for row in rows:
        for edit in zip(*(row[name] for name in lists), strict=True):
            edits.setdefault(text_key(edit[0]), edit)
    for name, values in zip(lists, zip(*edits.values(), strict=True), strict=True):
        merged[name] = list(values)
    for name in ("editor", "verifier"):
        merged[name] = JOINS.join(dict.fromkeys(row[name] for row in rows if row.get(name)))
    return merged
