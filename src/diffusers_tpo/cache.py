"""A folder of tensors by key that many runs and processes read and fill. Knows nothing of models or of what the keys mean."""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from .errors import UserError
from .files import make_folder, publish_file


logger = logging.getLogger(__name__)
Entry = dict[str, Tensor]
SHARD_BYTES = 64 * 2**20  # what a killed process loses at most
LARGE = 10 * 2**30  # bytes of which the user is warned


@lru_cache(maxsize=64)
def open_shard(path: Path):
    return safe_open(path, framework="pt")


class Cache:
    """Entries by key, in safetensors shards that are written whole or not at all and never change.

    A shard holds tensors called `<key>/<name>`. A damaged shard is left out, so its entries count as missing.
    """

    def __init__(self, folder: Path):
        """
        Args:
            folder: is made; its name should change with everything an entry depends on but its key.

        Raises:
            UserError: naming `encodings_dir`, if the folder cannot be written to.
        """
        self.folder, self.shards, self.places = Path(folder), set(), {}
        make_folder(self.folder, "encodings_dir")
        self.refresh()

    def refresh(self) -> None:
        """Takes in the shards that others have written."""
        for path in sorted(set(self.folder.glob("*.safetensors")) - self.shards):
            try:
                names = list(safe_open(path, framework="pt").keys())
            except (SafetensorError, OSError) as error:
                logger.warning(f"{path.name} in {self.folder} is damaged ({error}); its entries are made again")
                continue
            self.shards.add(path)
            for name in names:
                key, _, part = name.rpartition("/")
                self.places.setdefault(key, (path, []))[1].append(part)

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def __getitem__(self, key: str) -> Entry:
        path, names = self.places[key]
        shard = open_shard(path)
        return {name: shard.get_tensor(f"{key}/{name}") for name in dict.fromkeys(names)}

    def add(self, entries: dict[str, Entry]) -> None:
        """Writes one shard."""
        name = hashlib.sha256("".join(sorted(entries)).encode()).hexdigest()[:24] + ".safetensors"
        partial = self.folder / f".partial-{os.getpid()}-{name.removesuffix('.safetensors')}"
        tensors = {f"{key}/{part}": x.contiguous() for key, entry in entries.items() for part, x in entry.items()}
        save_file(tensors, partial)
        publish_file(partial, self.folder / name)

    def fill(self, keys: list[str], encode: Callable[[list[int]], list[Entry]], batch_size: int, what: str) -> None:
        """Makes the entries that are missing; call it on every process: each makes its share and all find the whole.

        Args:
            keys: may repeat.
            encode: the entries of some indices of `keys`; an empty one is not kept, so its key stays missing.
            batch_size: indices in one call of `encode`.
            what: the entries are, for the progress bar and messages.

        Raises:
            UserError: on every process, if `encode` raises it on one, or the disk is too small.
        """
        self._clear()
        state, first = PartialState(), {key: index for index, key in reversed(list(enumerate(keys)))}
        missing = broadcast_object_list([[index for key, index in sorted(first.items()) if key not in self]])[0]
        share = missing[state.process_index :: state.num_processes]
        errors = []
        try:
            bar = tqdm(total=len(share), desc=f"Encoding {what}", disable=not state.is_main_process or not share)
            for entries in self._batches(keys, share, encode, batch_size, len(missing), what):
                self.add(entries)
                bar.update(len(entries))
            bar.close()
        except (UserError, OSError) as error:
            errors.append(str(error))
        errors = gather_object(errors)
        if errors:
            raise UserError(errors[0])
        self.refresh()

    def _clear(self) -> None:
        """Removes what a killed process left half written an hour ago or earlier."""
        for path in self.folder.glob(".partial-*"):
            with contextlib.suppress(FileNotFoundError):  # another process may be faster
                if time.time() - path.stat().st_mtime > 3600:
                    path.unlink()

    def _batches(self, keys, share, encode, batch_size: int, number: int, what: str) -> Iterator[dict[str, Entry]]:
        """Entries by key, enough for a shard at a time."""
        entries, size = {}, 0
        for start in range(0, len(share), batch_size):
            indices = share[start : start + batch_size]
            made = [{name: x.cpu() for name, x in entry.items()} for entry in encode(indices)]
            if start == 0:
                self._announce(max(map(bytes_of, made)), number, what)
            entries |= {keys[index]: entry for index, entry in zip(indices, made, strict=True)}
            size += sum(map(bytes_of, made))
            if size >= SHARD_BYTES:
                yield entries
                entries, size = {}, 0
        if entries:
            yield entries

    def _announce(self, each: int, number: int, what: str) -> None:
        """Says how much will be written, before it is."""
        total, free = each * number, shutil.disk_usage(self.folder).free
        sizes = f"{number} {what} of {each / 2**10:,.0f} kB make {total / 2**30:,.1f} GB"
        if total > free:
            raise UserError(f"encodings_dir {str(self.folder.parent)!r} has {free / 2**30:,.1f} GB free, and {sizes}; "
                            "choose another folder, or encode while training")  # fmt: skip
        if PartialState().is_main_process:
            logger.log(logging.WARNING if total > LARGE else logging.INFO, f"{sizes} in {self.folder}")


def bytes_of(entry: Entry) -> int:
    return sum(x.numel() * x.element_size() for x in entry.values())


def fingerprint(parts: dict[str, object], *facts) -> str:
    """Changes with the weights, the configuration or the vocabulary of what encodes, wherever it was loaded from.

    Args:
        parts: modules, without any adapters that they carry, and tokenizers of a pipeline by name; `None` is left out.
        facts: whatever else the encodings depend on.
    """
    digest = hashlib.sha256(repr(facts).encode())
    for name, part in sorted(parts.items()):
        digest.update(f"{name} {type(part).__name__}".encode())
        if isinstance(part, torch.nn.Module):
            digest.update(repr(settings(part)).encode())
            for key, value in sorted(bare_state(part).items()):
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        elif part is not None:
            for file, content in saved_files(part):
                digest.update(file.encode() + content)
    return digest.hexdigest()[:16]


def bare_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """The weights under the names that they have without PEFT's adapters."""
    state = {name: value for name, value in module.state_dict().items() if "lora_" not in name}
    return {name.replace(".base_layer.", "."): value for name, value in state.items()}


def settings(module) -> list:
    """The configuration of a module or scheduler but for where and with which version it was saved."""
    config = module.config if isinstance(module.config, dict) else module.config.to_dict()
    left_out = ("transformers_version", "dtype", "torch_dtype")
    return sorted((name, repr(value)) for name, value in config.items() if name[0] != "_" and name not in left_out)


def saved_files(tokenizer) -> list[tuple[str, bytes]]:
    """Name and content of the files that a tokenizer or processor consists of."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return [(path.name, path.read_bytes()) for path in files]
