"""A folder of tensors by key that many runs and processes read and fill. Knows nothing of models or of what the keys mean."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, convert_bytes, gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import UserError
from ..files import make_folder, publish_file
from ..versions import version_of


logger = logging.getLogger(__name__)
Entry = dict[str, Tensor]
FORMAT = 3  # of the shards, and of what families make of a prompt
LIBRARIES = ("diffusers", "transformers", "tokenizers", "ftfy", "beautifulsoup4")  # of which an encoding depends
KEYS = "/keys"  # the tensor in a shard that holds the hashes of its keys, (n,) int64
SHARD_BYTES, SHARD_SECONDS = 64 * 2**20, 300  # what a killed process loses at most
WAITING_BYTES = 1024  # that an entry takes in memory besides its values until it is written
AHEAD = 4  # batches that are read before they are asked for
LARGE = 10 * 2**30  # bytes of which the user is warned


@lru_cache(maxsize=2**14)  # of the 2**16 mappings that Linux allows; none keeps a file descriptor
def open_shard(path: Path) -> Entry:
    """The stacked entries of a shard, mapped into memory: only what is looked at is read."""
    shard = safe_open(path, framework="pt")
    return {name: shard.get_tensor(name) for name in shard.keys() if name != KEYS}


def hash_of(key: str) -> int:
    """64 bits: among a million keys, two have the same with a probability of 3e-8."""
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def hashes_of(keys: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(hash_of, keys), np.int64, len(keys))


class Cache:
    """Entries by key, in safetensors shards that are written whole or not at all and never change.

    A shard holds entries of the same names, shapes and types, stacked, and the hashes of their keys; in memory an entry
    takes 16 bytes. A damaged shard is left out, so its entries count as missing.

    Attributes:
        hashes: of all keys, sorted, int64.
        spots: shard and row of each, `(n, 2)` int32.
    """

    def __init__(self, folder: Path):
        """
        Args:
            folder: is made; its name should change with everything an entry depends on but its key, and with `FORMAT`.

        Raises:
            UserError: naming `encodings_dir`, if the folder cannot be written to.
        """
        self.folder = Path(folder)
        self.shards: list[Path] = []
        self.hashes, self.spots = np.empty(0, np.int64), np.empty((0, 2), np.int32)
        make_folder(self.folder, "--encodings_dir")
        self.refresh()

    def refresh(self) -> None:
        """Takes in the shards that others have written."""
        hashes, spots = [self.hashes], [self.spots]
        for path in sorted(set(self.folder.glob("*.safetensors")) - set(self.shards)):
            try:
                keys = safe_open(path, framework="pt").get_tensor(KEYS).numpy()
            except (SafetensorError, OSError) as error:
                logger.warning(f"{path.name} in {self.folder} is damaged ({error}); its entries are made again")
                continue
            hashes.append(keys)
            spots.append(np.stack([np.full(len(keys), len(self.shards)), np.arange(len(keys))], 1).astype(np.int32))
            self.shards.append(path)
        if len(hashes) > 1:
            self.hashes, first = np.unique(np.concatenate(hashes), return_index=True)
            self.spots = np.concatenate(spots)[first]

    def _spot(self, key: str) -> tuple[int, int] | None:
        """Shard and row of an entry, `None` for one that is missing."""
        wanted = np.int64(hash_of(key))
        index = self.hashes.searchsorted(wanted)
        is_here = index < len(self.hashes) and self.hashes[index] == wanted
        if not is_here:
            return None
        shard, row = self.spots[index].tolist()
        return shard, row

    def __contains__(self, key: str) -> bool:
        return self._spot(key) is not None

    def __getitem__(self, key: str) -> Entry:
        """A copy of an entry. Raises `KeyError`."""
        if (place := self._spot(key)) is None:
            raise KeyError(key)
        shard, row = place
        return {name: stacked[row].clone() for name, stacked in open_shard(self.shards[shard]).items()}

    def lacking(self, keys: Sequence[str]) -> list[int]:
        """Indices of the `keys` that are missing, of all at once."""
        return self._lacking(hashes_of(keys)).tolist()

    def _lacking(self, hashes: np.ndarray) -> np.ndarray:
        return np.flatnonzero(~np.isin(hashes, self.hashes))

    def add(self, entries: dict[str, Entry]) -> None:
        """Writes one shard for all entries of the same names, shapes and types; an empty one is not kept."""
        alike: defaultdict[tuple, dict[str, Entry]] = defaultdict(dict)
        for key, entry in entries.items():
            alike[tuple((name, x.dtype, x.shape) for name, x in sorted(entry.items()))][key] = entry
        for form, part in alike.items():
            if form:
                hashes = hashes_of(list(part))
                stacked = {name: torch.stack([entry[name] for entry in part.values()]) for name, *_ in form}
                name = hashlib.sha256(np.sort(hashes).tobytes()).hexdigest()[:24]
                partial = self.folder / f".partial-{os.getpid()}-{name}"
                save_file(stacked | {KEYS: torch.from_numpy(hashes)}, partial)
                publish_file(partial, self.folder / f"{name}.safetensors")

    def fill(
        self,
        keys: Sequence[str],
        encode: Callable[[Any], list[Entry]],
        batch_size: int,
        what: str,
        read: Callable = list,
    ) -> None:
        """Makes the entries that are missing; call it on every process: each makes its share and all find the whole.

        Args:
            keys: may repeat.
            encode: the entries of what `read` gives; an empty one is not kept, so its key stays missing.
            batch_size: indices in one batch.
            what: the entries are, for the progress bar and messages.
            read: takes the indices in `keys` of a batch; threads call it while other batches are encoded.

        Raises:
            UserError: on every process, if `encode` raises it on one, or the disk is too small.
        """
        self._clear()
        state, hashes = PartialState(), hashes_of(keys)
        first = np.sort(np.unique(hashes, return_index=True)[1])
        missing = broadcast_object_list([first[self._lacking(hashes[first])]])[0]
        share = missing[state.process_index :: state.num_processes]
        parts = [share[start : start + batch_size].tolist() for start in range(0, len(share), batch_size)]
        errors = []
        try:
            hidden = not state.is_main_process or not len(share)
            with tqdm(total=len(share), desc=what.capitalize(), disable=hidden) as bar:
                self._make(keys, parts, map(encode, read_ahead(read, parts)), bar, len(missing), what)
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

    def _make(
        self,
        keys: Sequence[str],
        parts: list[list[int]],
        made: Iterator[list[Entry]],
        bar: tqdm,
        number: int,
        what: str,
    ) -> None:
        """Writes entries as they are made, enough for a shard at a time, and those that an error leaves."""
        entries: dict[str, Entry] = {}
        size, began = 0, time.monotonic()
        try:
            for part, batch in zip(parts, made, strict=True):
                batch = [{name: x.cpu() for name, x in entry.items()} for entry in batch]
                if part is parts[0]:
                    self._announce(max(map(bytes_of, batch)), number, what)
                entries |= {keys[index]: entry for index, entry in zip(part, batch, strict=True)}
                bar.update(len(part))
                size += sum(map(bytes_of, batch)) + WAITING_BYTES * len(batch)
                if size >= SHARD_BYTES or time.monotonic() - began >= SHARD_SECONDS:
                    whole, entries, size, began = entries, {}, 0, time.monotonic()
                    self.add(whole)
        finally:
            self.add(entries)

    def _announce(self, each: int, number: int, what: str) -> None:
        """Says how much will be written, before it is."""
        total, free = each * number, shutil.disk_usage(self.folder).free
        sizes = f"{number} {what} of {convert_bytes(each)} make {convert_bytes(total)}"
        if total > free:
            raise UserError(f"--encodings_dir {str(self.folder.parent)!r} has {convert_bytes(free)} free, and {sizes}; "
                            "choose another folder, or encode while training")  # fmt: skip
        if PartialState().is_main_process:
            logger.log(logging.WARNING if total > LARGE else logging.INFO, f"{sizes} in {self.folder}")


def read_ahead(read: Callable, batches: Iterable) -> Iterator:
    """What `read` makes of each batch, in order; threads read the next batches meanwhile."""
    pool = ThreadPoolExecutor(AHEAD, "read_ahead")
    waiting: deque[Future] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(read, batch))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def bytes_of(entry: Entry) -> int:
    return sum(x.numel() * x.element_size() for x in entry.values())


def fingerprint(parts: dict[str, object], *besides: object) -> str:
    """Changes with the weights, the configuration or the vocabulary of what encodes, wherever it was loaded from, and with the
    versions of the libraries that do it.

    Args:
        parts: modules, without any adapters that they carry, and tokenizers of a pipeline by name; `None` is left out.
        besides: whatever else the encodings depend on.
    """
    digest = hashlib.sha256(repr((FORMAT, [*map(version_of, LIBRARIES)], besides)).encode())
    for name, part in sorted(parts.items()):
        digest.update(f"{name} {type(part).__name__}".encode())
        if isinstance(part, torch.nn.Module):
            digest.update(repr(settings(part)).encode())
            for key, value in sorted(bare_state(part).items()):
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif part is not None:
            for file, content in saved_files(part):
                digest.update(file.encode() + content)
    return digest.hexdigest()[:16]


def bare_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """The weights under the names that they have without PEFT's adapters."""
    state = {name: value for name, value in module.state_dict().items() if "lora_" not in name}
    return {name.replace(".base_layer.", "."): value for name, value in state.items()}


def settings(module: Any) -> list[tuple[str, str]]:
    """The configuration of a module or scheduler but for where and with which version it was saved."""
    config = module.config if isinstance(module.config, dict) else module.config.to_dict()
    left_out = ("transformers_version", "dtype", "torch_dtype")
    return sorted((name, repr(value)) for name, value in config.items() if name[0] != "_" and name not in left_out)


def saved_files(tokenizer: Any) -> list[tuple[str, bytes]]:
    """Name and content of the files that a tokenizer or processor consists of, whatever it was last called with."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return [(path.name, _without_last_call(path.name, path.read_bytes())) for path in files]


def _without_last_call(name: str, content: bytes) -> bytes:
    """A fast tokenizer saves how it last padded and cut a text."""
    if name != "tokenizer.json":
        return content
    return json.dumps(json.loads(content) | {"padding": None, "truncation": None}, sort_keys=True).encode()
