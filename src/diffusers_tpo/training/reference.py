"""Keeps what the reference makes of every (image, draw, prompt) that a run asks for. Knows nothing of losses or of training."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..data.batch import Batch, join
from ..data.dataset import TextPreferenceDataset
from ..data.reader import Example
from ..errors import UserError
from .cache import Cache, Entry


ROWS_AT_ONCE = 2**16  # whose uses are listed together
EMPTY = ""  # no caption is empty, so it is the prompt that is asked about besides


@dataclass(frozen=True, eq=False)
class Wanted:
    """A place in a batch: the rows that may stand there, the best first, and whether the empty prompt is asked about too."""

    candidates: Iterator[int]
    with_empty: bool


class KnownReference:
    """The reference's errors in a folder that many runs share: over epochs, and over a sweep of beta, learning rate and loss.

    An error depends on the image, the prompt and the draw of noise, timestep and crop. Draws are counted, so `reader.draws`
    of them come back for ever, and the table stays small. Of the empty prompt the whole prediction is kept.
    """

    def __init__(self, folder: Path, dataset: TextPreferenceDataset, empty_share: float = 0.0):
        """
        Args:
            folder: its name should change with the weights and with all settings that an error depends on.
            empty_share: of the images of a batch are asked about the empty prompt; see [`~diffusers_tpo.data.batch.join`].

        Raises:
            UserError: naming `encodings_dir`, if the folder cannot be written to.
        """
        self.cache, self.dataset, self.empty_share = Cache(folder), dataset, empty_share
        self.crops = dataset.crops()

    def key(self, row_id: int, number: int, prompt: str) -> str:
        return f"{self.crops.key(row_id, False)}/{row_id}/{number}/{prompt}"

    def fill(
        self,
        epochs: Iterable[tuple[int, Iterable[list[int]]]],
        answer_of: Callable[[Batch], Entry],
        batch_size: int,
        may_compute: bool = True,
    ) -> None:
        """Computes the errors that are missing; call it on every process: each makes its share and all find the whole.

        Args:
            epochs: of the run, each with its batches of positions in the data set's order; see [`PlacedLoader.epochs`].
            answer_of: the reference's `error` `(N,)` and `prediction` `(N, C, ...)` of every row of a batch.
            batch_size: rows in a batch.

        Raises:
            UserError: if errors are missing and `may_compute` is false, or from the data set or the cache.
        """
        for epoch, batches in epochs:
            self.dataset.begin_epoch(epoch)
            waiting = list(itertools.chain.from_iterable(map(self._wanted, batches)))
            while waiting:  # a second time only for rows that stand in for those whose images cannot be read
                chosen = [(wanted, next(wanted.candidates, None)) for wanted in waiting]
                uses = {
                    wanted: [(row_id, prompt) for prompt in self._prompts(row_id, wanted.with_empty)]
                    for wanted, row_id in chosen
                    if row_id is not None
                }
                self._fill_uses(
                    list(itertools.chain.from_iterable(uses.values())), epoch, answer_of, batch_size, may_compute
                )
                waiting = [wanted for wanted, of_row in uses.items() if not self._are_known(of_row, epoch)]

    def fill_all(self, answer_of: Callable[[Batch], Entry], batch_size: int, may_compute: bool = True) -> None:
        """The same for every draw of every row with every prompt that may be drawn for it.

        Raises:
            UserError: as [`~KnownReference.fill`].
        """
        rows = self.dataset.usable.tolist()
        for number in self._numbers():
            self.dataset.begin_epoch(number)
            for start in range(0, len(rows), ROWS_AT_ONCE):
                part = rows[start : start + ROWS_AT_ONCE]
                uses = [(row_id, prompt) for row_id in part for prompt in self.dataset.candidates(row_id)]
                self._fill_uses(uses, number, answer_of, batch_size, may_compute)

    def errors_of(self, row_id: int, prompts: list[str]) -> Tensor | None:
        """The errors of some prompts of a row at all draws, `(P, D)`; `None` if its image could not be read."""
        keys = [[self.key(row_id, number, prompt) for number in self._numbers()] for prompt in prompts]
        if not all(key in self.cache for of_prompt in keys for key in of_prompt):
            return None
        return torch.stack([torch.stack([self.cache[key]["error"] for key in of_prompt]) for of_prompt in keys])

    def _numbers(self) -> range:
        """Of the draws that come back for ever."""
        assert self.dataset.reader.draws is not None  # --reference_draws
        return range(self.dataset.reader.draws)

    def _wanted(self, positions: list[int]) -> list[Wanted]:
        """The places of a batch. Which images are asked about the empty prompt is known only to a share of an image."""
        with_empty = math.ceil(len(positions) * self.empty_share)
        return [Wanted(self.dataset.standing_in(position), at < with_empty) for at, position in enumerate(positions)]

    def _prompts(self, row_id: int, with_empty: bool) -> list[str]:
        return self.dataset.prompts_of(row_id) + [EMPTY] * with_empty

    def _keys(self, uses: list[tuple[int, str]], epoch: int) -> list[str]:
        draw = self.dataset.reader.draw
        return [self.key(row_id, draw(row_id, epoch).number, prompt) for row_id, prompt in uses]

    def _are_known(self, uses: list[tuple[int, str]], epoch: int) -> bool:
        return all(key in self.cache for key in self._keys(uses, epoch))

    def _fill_uses(
        self,
        uses: list[tuple[int, str]],
        epoch: int,
        answer_of: Callable[[Batch], Entry],
        batch_size: int,
        may_compute: bool,
    ) -> None:
        """Computes the entries of (row, prompt) in an epoch that the data set has begun."""
        keys = self._keys(uses, epoch)
        if not may_compute and not all(key in self.cache for key in keys):
            raise UserError("--precompute_reference cannot fill its table under FSDP; run the command with one process "
                            "first, which fills --encodings_dir, or leave it out")  # fmt: skip

        def read(indices: list[int]) -> tuple[list, list[Batch]]:
            return self._read([uses[index] for index in indices])

        def encode(part: tuple[list[tuple[int, str]], list[Batch]]) -> list[Entry]:
            return self._answers_of(*part, answer_of)

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
    def _answers_of(
        self, uses: list[tuple[int, str]], batches: list[Batch], answer_of: Callable[[Batch], Entry]
    ) -> list[Entry]:
        """The entry of each (row, prompt) in this epoch, empty where the image cannot be read and its row is skipped."""
        found: dict[tuple[int, str], Entry] = {}
        for batch in batches:
            ids = [int(draw.row) for draw in batch.draws] * batch.prompts_per_image
            answer = {name: value.cpu() for name, value in answer_of(batch).items()}
            for row, (row_id, prompt) in enumerate(zip(ids, batch.prompts, strict=True)):
                kept = ("error", "prediction") if prompt == EMPTY else ("error",)
                found[row_id, prompt] = {name: answer[name][row].clone() for name in kept}
        return [found.get(use, {}) for use in uses]

    def errors(self, batch: Batch, device: torch.device) -> Tensor:
        """The errors of all rows of a batch that have a prompt, `(N,)`, float32, on the device."""
        draws = batch.draws * batch.prompts_per_image
        keys = (
            self.key(int(draw.row), draw.number, prompt) for draw, prompt in zip(draws, batch.prompts, strict=True)
        )
        return torch.stack([self.cache[key]["error"] for key in keys]).to(device, non_blocking=True)

    def empty_predictions(self, batch: Batch, device: torch.device) -> Tensor | None:
        """What the reference predicts of the empty prompt, `(num_empty, C, ...)`, on the device; `None` if it is not asked."""
        keys = (self.key(int(draw.row), draw.number, EMPTY) for draw in batch.draws[: batch.num_empty])
        kept = [self.cache[key]["prediction"] for key in keys]
        return torch.stack(kept).to(device, non_blocking=True) if kept else None
