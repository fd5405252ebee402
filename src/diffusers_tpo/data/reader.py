"""Makes an example of one row of a text-preference data set: a crop and its prompts. Knows nothing of other rows or batches."""

import contextlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

import torch

from ..decoding import EMBEDDED, ImageFiles, decode_image
from ..errors import BadRow, UserError
from ..noising import Draw
from ..principles import PRINCIPLES
from .buckets import choose_bucket
from .crops import Crop, EncodedCrop, is_mirrored, transform_image
from .rows import Columns
from .texts import allowed_mismatched, brief, check_text, label_of


Problems = dict[int, str]  # what is wrong with rows that cannot be used, by row
Sees = Callable[[list[str]], list[Hashable]]  # what a model is given of each prompt


@dataclass(frozen=True)
class Example:
    """One use of one image: its crop and its prompts, matched and mismatched, and the rows that it stands in for."""

    draw: Draw
    crop: Crop | EncodedCrop
    prompts: list[str]
    is_matched: list[bool]
    skipped: Problems = field(default_factory=dict)


def none_usable(skipped: Problems) -> UserError:
    first = next(iter(skipped.values()))
    return UserError(f"--dataset_name holds no row that can be used; of {len(skipped)} bad ones the first is {first}")


def choose_mismatched(allowed: list[str], draw: Draw, num_mismatched: int) -> list[str]:
    """Draws `num_mismatched` of a row's mismatched prompts, again from the start if too few."""
    order = torch.randperm(len(allowed), generator=draw.generator("mismatched")).tolist()
    return [allowed[order[index % len(order)]] for index in range(num_mismatched)]


@dataclass
class RowReader:
    """Turns a raw data set row into an [`Example`]: the same for a map-style and a streamed data set.

    `buckets` are heights and widths, of which each image gets the nearest; `None` means a square of `resolution`.
    `on_bad_row` is "error" or "skip". With `draws`, crop, noise and timestep of a row come back after so many uses.
    `files` says which files the cells of the image column may name, see [`~diffusers_tpo.decoding.ImageFiles`].
    `hardest` are the numbers of those mismatched prompts of each row that are drawn from, among those that follow `principles`.
    `sees` gives what the model is given of each prompt, such as token ids; a mismatched prompt must not look like its prompt.
    """

    columns: Columns
    loss_type: str
    unpaired: bool
    seed: int
    resolution: int = 512
    center_crop: bool = False
    random_flip: bool = False
    num_mismatched: int = 1
    principles: tuple[str, ...] = tuple(PRINCIPLES)
    proportion_empty_prompts: float = 0.0
    buckets: list[tuple[int, int]] | None = None
    on_bad_row: str = "error"
    draws: int | None = None
    files: ImageFiles = EMBEDDED
    sees: Sees | None = None
    hardest: dict[int, list[int]] | None = None

    def used(self, present: list[str]) -> list[str]:
        """Which of the columns that are `present` are read; no other is ever looked at."""
        return self.columns.used(present, self.loss_type, self.unpaired)

    def size_of_crop(self, height: int, width: int) -> tuple[int, int]:
        return choose_bucket((height, width), self.buckets) if self.buckets else (self.resolution, self.resolution)

    def is_mirrored(self, draw: Draw) -> bool:
        return self.random_flip and is_mirrored(draw)

    def crop(self, row: dict, draw: Draw, mirror: bool) -> Crop:
        """The crop of a row.

        Raises:
            BadRow: naming the row, if its image cannot be read.
        """
        image = decode_image(row[self.columns.image], draw.row, self.files)
        size = self.size_of_crop(image.height, image.width)
        return transform_image(image, draw, size, self.center_crop, mirror)

    @property
    def paired(self) -> bool:
        return not (self.unpaired or self.loss_type == "sft")

    @contextlib.contextmanager
    def skipping(self, row_id: int, skipped: Problems) -> Iterator[None]:
        """Notes in `skipped` what is wrong with a row that the block uses, or raises that, as `on_bad_row` says."""
        try:
            yield
        except BadRow as error:
            if self.on_bad_row == "error":
                advice = "; --on_bad_row skip leaves such rows out"
                raise BadRow(str(error).removesuffix(advice) + advice) from error
            skipped[row_id] = str(error)

    def check(self, row: dict, row_id: int) -> None:
        """Checks the texts of a row, once: what [`~RowReader.read`] and [`~RowReader.prompts`] take has been checked.

        Raises:
            BadRow: naming the row and what is wrong with it.
        """
        check_text(row, row_id, self.columns, self.loss_type, self.unpaired)
        if self.paired and not allowed_mismatched(row, self.columns, self.principles):
            wanted = ", ".join(self.principles)
            raise BadRow(f"row {row_id}: no mismatched prompt follows {wanted}; widen --principles")

    def check_seen(self, rows: list[tuple[int, dict]], skipped: Problems) -> None:
        """Checks that the model can tell the mismatched prompts of checked rows from their prompts, if `sees` is known.

        Args:
            rows: with their numbers; the more at once, the faster.
            skipped: see [`~RowReader.skipping`].
        """
        if self.sees is None or not self.paired:
            return
        texts = [
            [row[self.columns.prompt], *allowed_mismatched(row, self.columns, self.principles)] for _, row in rows
        ]
        distinct = list(dict.fromkeys(text for of_row in texts for text in of_row))
        seen = dict(zip(distinct, self.sees(distinct), strict=True))
        for (row_id, _), (prompt, *mismatched) in zip(rows, texts, strict=True):
            with self.skipping(row_id, skipped):
                for text in mismatched:
                    if seen[text] == seen[prompt]:
                        same = f"the model is given the same tokens for the mismatched prompt {brief(text)} and the prompt"
                        raise BadRow(f"row {row_id}: {same}; shorten both or remove it")

    def draw(self, row_id: int, number: int) -> Draw:
        """Of crop, noise and timestep of one use."""
        return Draw(self.seed, row_id, number if self.draws is None else number % self.draws)

    def prompts(self, row: dict, draw: Draw) -> tuple[list[str], list[bool]]:
        """The prompts of one use, and which of them match."""
        prompt = row[self.columns.prompt]
        if self.unpaired:
            return [prompt], [bool(label_of(row[self.columns.label]))]
        if self.loss_type == "sft":
            is_empty = torch.rand((), generator=draw.generator("empty")) < self.proportion_empty_prompts
            return ["" if is_empty else prompt], [True]
        allowed = allowed_mismatched(row, self.columns, self.principles)
        if self.hardest is not None:
            allowed = [allowed[index] for index in self.hardest[int(draw.row)]]
        mismatched = choose_mismatched(allowed, draw, self.num_mismatched)
        return [prompt, *mismatched], [True] + [False] * len(mismatched)

    def read(self, row: dict, row_id: int, number: int, encoded: EncodedCrop | None = None) -> Example:
        """One use of a row whose texts have been checked; `encoded` takes the place of its image.

        Raises:
            BadRow: naming the row, if its image cannot be read.
        """
        draw = self.draw(row_id, number)
        crop = self.crop(row, draw, self.is_mirrored(draw)) if encoded is None else encoded
        prompts, is_matched = self.prompts(row, Draw(self.seed, row_id, number))
        return Example(draw, crop, prompts, is_matched)
