"""Keeps the reference's error of every (image, draw, prompt) that a run asks for. Knows nothing of losses or of training."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..data.batch import Batch, join
from ..data.dataset import TextPreferenceDataset
from ..data.reader import Example
from ..errors import UserError
from .cache import Cache, Entry


class KnownReference:
    """The reference's errors in a folder that many runs share: over epochs, and over a sweep of beta, learning rate and loss.

    An error depends on the image, the prompt and the draw of noise, timestep and crop. Draws are counted, so `reader.draws`
    of them come back for ever, and the table stays small.
    """

    def __init__(self, folder: Path, dataset: TextPreferenceDataset):
        """
        Args:
            folder: its name should change with the weights and with all settings that an error depends on.

        Raises:
            UserError: naming `encodings_dir`, if the folder cannot be written to.
        """
        self.cache, self.dataset = Cache(folder), dataset
        self.crops = dataset.crops()

    def key(self, row_id: int, number: int, prompt: str) -> str:
        return f"{self.crops.key(row_id, False)}/{row_id}/{number}/{prompt}"

    def fill(
        self,
        epochs: Iterable[tuple[int, Iterable[list[int]]]],
        error_of: Callable[[Batch], Tensor],
        batch_size: int,
        may_compute: bool = True,
    ) -> None:
        """Computes the errors that are missing; call it on every process: each makes its share and all find the whole.

        Args:
            epochs: of the run, each with its batches of positions in the data set's order; see [`PlacedLoader.epochs`].
            error_of: the reference's error of every row of a batch, `(N,)`.
            batch_size: rows in a batch.

        Raises:
            UserError: if errors are missing and `may_compute` is false, or from the data set or the cache.
        """
        for epoch, batches in epochs:
            self.dataset.begin_epoch(epoch)
            waiting = [self.dataset.standing_in(position) for position in itertools.chain.from_iterable(batches)]
            while waiting:  # a second time only for rows that stand in for those whose images cannot be read
                chosen = [(candidates, next(candidates, None)) for candidates in waiting]
                chosen = [(candidates, row_id) for candidates, row_id in chosen if row_id is not None]
                self._fill_rows([row_id for _, row_id in chosen], epoch, error_of, batch_size, may_compute)
                waiting = [candidates for candidates, row_id in chosen if not self._is_known(row_id, epoch)]

    def _is_known(self, row_id: int, epoch: int) -> bool:
        return all(key in self.cache for key in self._keys(row_id, epoch))

    def _keys(self, row_id: int, epoch: int) -> list[str]:
        number = self.dataset.reader.draw(row_id, epoch).number
        return [self.key(row_id, number, prompt) for prompt in self.dataset.prompts_of(row_id)]

    def _fill_rows(
        self, rows: list[int], epoch: int, error_of: Callable[[Batch], Tensor], batch_size: int, may_compute: bool
    ) -> None:
        """Computes the errors of some rows in an epoch that the data set has begun."""
        uses = [(row_id, prompt) for row_id in rows for prompt in self.dataset.prompts_of(row_id)]
        keys = [key for row_id in rows for key in self._keys(row_id, epoch)]
        if not may_compute and not all(key in self.cache for key in keys):
            raise UserError("--precompute_reference cannot fill its table under FSDP; run the command with one process "
                            "first, which fills --encodings_dir, or leave it out")  # fmt: skip

        def read(indices: list[int]) -> tuple[list, list[Batch]]:
            return self._read([uses[index] for index in indices])

        def encode(part: tuple[list[tuple[int, str]], list[Batch]]) -> list[Entry]:
            return self._errors_of(*part, error_of)

        self.cache.fill(keys, encode, batch_size, f"reference errors of epoch {epoch}", read)

    def _read(self, uses: list[tuple[int, str]]) -> tuple[list[tuple[int, str]], list[Batch]]:
        """The uses themselves, and batches of examples with as many prompts and crops of one size, without unreadable images."""
        prompts: dict[int, list[str]] = {}
        groups: dict[tuple, list[Example]] = {}
        for row_id, prompt in uses:
            prompts.setdefault(row_id, []).append(prompt)
        for row_id, texts in prompts.items():
            with self.dataset.reader.skipping(row_id, {}):
                example = replace(self.dataset.example(row_id), prompts=texts, is_matched=[True] * len(texts))
                groups.setdefault((len(texts), example.crop.sizes[4:]), []).append(example)
        return uses, [join(examples) for examples in groups.values()]

    @torch.no_grad()
    def _errors_of(
        self, uses: list[tuple[int, str]], batches: list[Batch], error_of: Callable[[Batch], Tensor]
    ) -> list[Entry]:
        """The entry of each (row, prompt) in this epoch, empty where the image cannot be read and its row is skipped."""
        found: dict[tuple[int, str], Entry] = {}
        for batch in batches:
            ids = [int(draw.row) for draw in batch.draws] * batch.prompts_per_image
            parts = zip(ids, batch.prompts, error_of(batch).float().cpu(), strict=True)
            found |= {(row_id, prompt): {"error": error} for row_id, prompt, error in parts}
        return [found.get(use, {}) for use in uses]

    def errors(self, batch: Batch, device: torch.device) -> Tensor:
        """The errors of all rows of a batch, `(N,)`, float32, on the device."""
        draws = batch.draws * batch.prompts_per_image
        keys = (
            self.key(int(draw.row), draw.number, prompt) for draw, prompt in zip(draws, batch.prompts, strict=True)
        )
        return torch.stack([self.cache[key]["error"] for key in keys]).to(device, non_blocking=True)
