"""Names models by their content: a folder that was moved is the same, changed weights are others. Loads nothing."""

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from huggingface_hub import hf_hub_download


WEIGHTS = (".safetensors", ".bin")
HEADS = ("model_index.json", "config.json", "pytorch_lora_weights.safetensors")  # one of them is in every repository
SHARD = re.compile(r"-\d{5}-of-\d{5}")


def fingerprint(
    source: str,
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | None = None,
    token: str | None = None,
) -> str:
    """Changes with the files that loading a model reads.

    Args:
        source: folder of a pipeline, folder or file of a LoRA, folder of a checkpoint, or Hub id, which stands for its commit.
        variant: of the weight files of a pipeline.
    """
    path = Path(source)
    if not path.exists():
        return _short(_commit(source, revision, cache_dir, token) or f"{source}@{revision}")
    files = {file.relative_to(path).as_posix() if path.is_dir() else "": file for file in files_of(path, variant)}
    return _short(repr([(name, digest_of(file)) for name, file in sorted(files.items())]))


def _commit(source: str, revision: str | None, cache_dir: str | None, token: str | None) -> str | None:
    """The commit of a revision that loading will read; `None` if the Hub has no such model, or cannot be reached."""
    for name in HEADS:
        try:
            file = hf_hub_download(source, name, revision=revision, cache_dir=cache_dir, token=token)
        except (OSError, ValueError):  # another kind of model, or none
            continue
        return Path(file).parent.name
    return None


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_of(path: Path, variant: str | None = None) -> list[Path]:
    """The files of a local model that loading reads, but for those that say what a run was."""
    if path.is_file():
        return [path]
    if (path / "config.json").is_file():  # a single module, or a language model with its tokenizer
        return _files_of_part(path, variant)
    if not (path / "model_index.json").is_file():  # a run may leave other things beside its LoRA or in its checkpoint
        return [file for file in path.glob("*") if file.suffix == ".safetensors" or file.name.startswith("pytorch_")]
    parts = [path / name for name in index_of(path) if (path / name).is_dir()]
    return [path / "model_index.json", *(file for part in parts for file in _files_of_part(part, variant))]


def _files_of_part(part: Path, variant: str | None) -> list[Path]:
    files = [file for file in part.rglob("*") if file.is_file() and not file.name.startswith(".")]
    weights = [file for file in files if file.suffix in WEIGHTS]
    for chosen in (
        [f for f in weights if variant and _variant(f) == variant],
        [f for f in weights if not _variant(f)],
    ):
        if chosen:
            safe = [file for file in chosen if file.suffix == ".safetensors"]
            weights = safe or chosen
            break
    return [file for file in files if file.suffix not in (*WEIGHTS, ".md", ".msgpack", ".h5", ".onnx")] + weights


def _variant(weights: Path) -> str:
    """`fp16` of `model.fp16-00001-of-00002.safetensors`; empty for the main file."""
    return SHARD.sub("", weights.stem).partition(".")[2]


def index_of(pipeline: Path) -> dict:
    """The parts of a saved pipeline; none if its index cannot be read, of which loading it will tell."""
    try:
        index = json.loads((pipeline / "model_index.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return index if isinstance(index, dict) else {}


def digest_of(file: Path) -> str:
    """sha256 of a file's content; read once as long as the file is not touched."""
    file = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", file.name):  # of a large file, the Hub's cache has it as its name
        return file.name
    stat = file.stat()
    return _digest(file, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=4096)
def _digest(file: Path, *stamp: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
