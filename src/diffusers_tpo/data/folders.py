"""What a folder on this machine holds: which files are the rows of a split, and captions beside images. Knows no columns."""

import glob
import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import datasets
import pandas
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

from ..errors import UserError
from ..show import harmless, shorten


logger = logging.getLogger(__name__)
TABLES = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NO_ROWS = ("config.json", "dataset_info.json", "dataset_infos.json", "state.json", "audit.json", "results.json")
CSV = {"keep_default_na": False, "na_values": [""]}  # NA, None and null are captions, nothing is none
SPLITS = {
    word: split
    for split, words in {
        "train": ("train", "training"),
        "validation": ("validation", "valid", "dev", "val"),
        "test": ("test", "testing", "eval", "evaluation"),
    }.items()
    for word in words
}
SPLIT_WORD = re.compile(rf"(?:^|[-._ 0-9])({'|'.join(SPLITS)})(?=[-._ 0-9]|$)")
SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}.*")
LARGEST_CAPTION = 2**20  # bytes; no prompt may be as long


@dataclass(frozen=True)
class Layout:
    """The files of a folder that hold rows.

    Attributes:
        folder: that they lie in.
        loader: of `datasets` that reads them.
        splits: their paths in the folder by split.
        folders: by split, the folders that hold all files of it and no others; empty if files make the splits.
    """

    folder: Path
    loader: str
    splits: dict[str, list[str]]
    folders: dict[str, list[str]]

    @property
    def is_tabbed(self) -> bool:
        return all(kind(path) == ".tsv" for files in self.splits.values() for path in files)

    def patterns(self) -> dict[str, list[str]]:
        """The files as `datasets` wants them named, whatever characters are in their paths."""
        if self.folders:
            return {s: [f"{glob.escape(str(self.folder / f))}/**" for f in found] for s, found in self.folders.items()}
        return {s: [glob.escape(str(self.folder / f)) for f in found] for s, found in self.splits.items()}


def files_in(folder: Path) -> list[str]:
    """Paths in a folder, without hidden files. Raises `OSError` if it or a folder in it cannot be read."""

    def refuse(error: OSError) -> None:
        raise error

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found += [Path(place, name).relative_to(folder).as_posix() for name in sorted(files) if name[0] != "."]
    return found


def kind(path: str) -> str:
    return Path(path).suffix.lower()


def layout_of(folder: Path) -> Layout | None:
    """How a folder of tables or images is divided into splits; `None` for other files.

    Files are divided by the split words in the names of their folders, or else in their own. Where the words are only part
    of some names, such as `train-station.png` or a class of pictures called train, there are no splits and all is train.
    """
    files = files_in(folder)
    tables = [path for path in files if kind(path) in TABLES and Path(path).name not in METADATA + NO_ROWS]
    shards = [path for path in tables if Path(path).parent.name == "data" and SHARD.fullmatch(Path(path).name)]
    if shards:  # whatever else whoever wrote them has left
        return table_layout(folder, shards)
    if tables:
        return table_layout(folder, tables)
    images = [path for path in files if kind(path) in ImageFolder.EXTENSIONS]
    return image_layout(folder, images, [path for path in files if kind(path) == ".zip"]) if images else None


def table_layout(folder: Path, tables: list[str]) -> Layout:
    counts = Counter(TABLES[kind(path)] for path in tables)
    loader = max(counts, key=lambda name: (counts[name], name == "parquet", name))
    members = [path for path in tables if TABLES[kind(path)] == loader]
    say_left_out([path for path in tables if path not in members], f"only one kind of tables is read, here {loader}")
    by_name = {path: split_of_name(Path(path).name) for path in members}
    named = of_folders(members)[0] or {path: split for path, split in by_name.items() if split}
    is_real = len(named) == len(members) or len(set(named.values())) > 1 or any(map(is_split_file, named))
    if not is_real:
        return Layout(folder, loader, {"train": members}, {})
    say_left_out([path for path in members if path not in named], "their names name no split")
    return Layout(folder, loader, grouped(named), {})


def image_layout(folder: Path, images: list[str], archives: list[str]) -> Layout:
    named, places = of_folders(images + archives)
    if len(named) < len(images + archives) and len(set(named.values())) < 2:
        return Layout(folder, "imagefolder", {"train": images + archives}, {"train": ["."]})
    say_left_out([path for path in images if path not in named], "no folder around them names a split")
    folders = {split: sorted({places[p] for p in named if named[p] == split}) for split in named.values()}
    return Layout(folder, "imagefolder", grouped(named), folders)


def of_folders(members: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The split of each file around which a folder names one, and that folder."""
    places = {path: place for path in members if (place := split_folder(path))}
    words = {path: SPLIT_WORD.search(Path(place).name) for path, place in places.items()}
    return {path: SPLITS[word[1]] for path, word in words.items() if word is not None}, places


def grouped(named: dict[str, str]) -> dict[str, list[str]]:
    return {split: [path for path in named if named[path] == split] for split in dict.fromkeys(named.values())}


def split_folder(path: str) -> str | None:
    """The outermost folder around a file whose name names a split."""
    return next((str(place) for place in [*Path(path).parents][::-1] if SPLIT_WORD.search(place.name)), None)


def split_of_name(name: str) -> str | None:
    if shard := SHARD.fullmatch(name):
        return SPLITS.get(shard[1], shard[1])
    word = SPLIT_WORD.search(Path(name).stem)
    return SPLITS[word[1]] if word else None


def is_split_file(path: str) -> bool:
    """Whether a file is called after a split and nothing else, such as `train.jsonl` or `train-00000-of-00002.parquet`."""
    return Path(path).stem in SPLITS or SHARD.fullmatch(Path(path).name) is not None


def say_left_out(files: list[str], why: str) -> None:
    if files:
        number = f"{len(files)} file{'s' if len(files) > 1 else ''}"
        logger.warning(harmless(f"{number} of the data set left out, {why}: {shorten(', '.join(files[:3]), 200)}"))


def captions_beside(layout: Layout, split: str) -> datasets.Dataset | None:
    """Rows of images that have captions in text files of their name, in the columns `image` and `prompt`.

    Images without one are left out, which is said.

    Returns:
        `None` if no image has one, or the folder has metadata, which comes first.

    Raises:
        UserError: naming a caption that is no text, or a link to a text of somebody else's.
    """
    images = [path for path in layout.splits.get(split, ()) if kind(path) in ImageFolder.EXTENSIONS]
    texts = {path: layout.folder / Path(path).with_suffix(".txt") for path in images}
    with_text = [path for path in images if texts[path].is_file()]
    if not with_text or any(Path(path).name in METADATA for path in files_in(layout.folder)):
        return None
    say_left_out(
        [path for path in images if path not in with_text], "they have no captions in text files of their names"
    )
    rows = {
        "image": [str(layout.folder / path) for path in with_text],
        "prompt": [read_caption(texts[path], layout.folder / path, layout.folder) for path in with_text],
    }
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def read_caption(path: Path, image: Path, folder: Path) -> str:
    """The text of a file beside an image, on one line. A link may lead to another file of the folder, or beside the image's own."""
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()) and real.parent != image.resolve().parent:
        raise UserError(f"the caption {str(path)!r} is a link out of the data set's folder; put the text itself there")
    with open(path, "rb") as file:
        content = file.read(LARGEST_CAPTION + 1)
    if len(content) > LARGEST_CAPTION:
        raise UserError(f"the caption {str(path)!r} has more than {LARGEST_CAPTION} bytes; shorten or remove it")
    try:
        return " ".join(content.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise UserError(f"the caption {str(path)!r} is not encoded in UTF-8 ({error}); mend or remove it") from error


def metadata_tables(layout: Layout) -> datasets.Dataset | None:
    """Rows of an imagefolder without splits whose metadata are CSV, of which `datasets` would take NA and None for nothing."""
    tables = [path for path in files_in(layout.folder) if Path(path).name == "metadata.csv"]
    if not tables or list(layout.splits) != ["train"]:
        return None
    parts = []
    for path in tables:
        part = pandas.read_csv(layout.folder / path, encoding="utf-8-sig", **CSV)
        if "file_name" not in part:
            raise UserError(f"the metadata {str(layout.folder / path)!r} have no column file_name; add it")
        folder = (layout.folder / path).parent
        part.insert(0, "image", [str(folder / str(name)) for name in part.pop("file_name")])
        parts.append(part)
    rows = datasets.Dataset.from_pandas(pandas.concat(parts), preserve_index=False)
    return rows.cast_column("image", datasets.Image())
