"""Held-out pairs: images with a matched prompt and mismatched ones, on which a model is judged. Knows nothing of training."""

from dataclasses import dataclass
from hashlib import sha256

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from diffusers import DiffusionPipeline
from torch import Tensor
from tqdm.auto import tqdm

from ..data.crops import Crop, transform_image
from ..data.rows import Columns, check_columns, texts_of
from ..data.texts import check_text
from ..decoding import decode_image, read_bytes
from ..errors import UserError
from ..families import Family
from ..image_files import EMBEDDED, ImageFiles
from ..memory import FittingBatches
from ..noising import Draw, sample_latents


@dataclass(frozen=True)
class HeldOutPairs:
    """Rows of a text-preference data set.

    Attributes:
        prompts: of each image, the matched one first.
        principles: of its mismatched prompts.
        resolution: side in pixels of the square in the middle of the image that is judged.
        files: that the cells of the image column may name.
    """

    rows: datasets.Dataset
    image_column: str
    prompts: list[list[str]]
    principles: list[list[str]]
    resolution: int
    files: ImageFiles = EMBEDDED

    def __len__(self) -> int:
        return len(self.prompts)

    def captions(self) -> list[str]:
        return [texts[0] for texts in self.prompts]

    def content(self) -> dict[str, object]:
        """What an answer about the pairs depends on, but for the model; of an image file its bytes, wherever it lies.

        Raises:
            UserError: naming a row whose image cannot be read.
        """
        cells = (row[self.image_column] for row in self.rows)
        return {
            "captions": self.captions(),
            "mismatched prompts": [texts[1:] for texts in self.prompts],
            "principles": self.principles,
            "images": [sha256(read_bytes(cell, row, self.files)).hexdigest() for row, cell in enumerate(cells)],
            "resolution": self.resolution,
        }

    def distinct(self, number: int) -> list[int]:
        """The first rows whose captions are all different, at most `number`."""
        first = {texts[0]: row for row, texts in reversed(list(enumerate(self.prompts)))}
        return sorted(first.values())[:number]

    @torch.no_grad()
    def encode(
        self, family: Family, pipe: DiffusionPipeline, seed: int = 0, batch_size: int = 8, progress: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents `(N, C, H, W)` and sizes `(N, 6)` on the CPU, see [`~diffusers_tpo.data.crops.Crop`].

        Every process must call it: each encodes its share, and all get the whole.

        Raises:
            UserError: naming a row whose image cannot be read.
        """
        state, sizes = PartialState(), torch.zeros(len(self), 6)
        latents: Tensor | None = None
        starts = range(0, len(self), batch_size)[state.process_index :: state.num_processes]
        hidden = progress is None or not state.is_local_main_process
        fitting = FittingBatches("images to encode", batch_size)
        for start in tqdm(starts, desc=progress, disable=hidden):
            draws = [Draw(seed, row) for row in range(start, min(start + batch_size, len(self)))]
            crops = [(draw, self._crop(draw)) for draw in draws]
            sizes[start : start + len(draws)] = torch.tensor([crop.sizes for _, crop in crops])
            part = torch.stack(fitting.map(lambda part: _encode(family, pipe, part), crops))
            if latents is None:
                latents = torch.zeros(len(self), *part.shape[1:])
            latents[start : start + len(draws)] = part
        if state.num_processes > 1:
            shapes: list[torch.Size | None] = [None] * state.num_processes
            torch.distributed.all_gather_object(shapes, None if latents is None else latents.shape)
            shape = next(shape for shape in shapes if shape is not None)
            latents = torch.zeros(shape) if latents is None else latents
        assert latents is not None  # there is at least one row, and now every process has its shape
        whole = [reduce(part.to(state.device), "sum").cpu() for part in (latents, sizes)]
        return whole[0], whole[1]

    def _crop(self, draw: Draw) -> Crop:
        image = decode_image(self.rows[draw.row][self.image_column], draw.row, self.files)
        return transform_image(image, draw, (self.resolution, self.resolution), center_crop=True, mirror=False)


def _encode(family: Family, pipe: DiffusionPipeline, crops: list[tuple[Draw, Crop]]) -> list[Tensor]:
    draws = [draw for draw, _ in crops]
    pixels = torch.stack([crop.pixels for _, crop in crops])
    return list(sample_latents(*family.encode_images(pipe, pixels), draws).cpu())


def held_out_pairs(
    rows: datasets.Dataset, columns: Columns, resolution: int, number: int | None, files: ImageFiles = EMBEDDED
) -> HeldOutPairs:
    """The first `number` rows of a loaded data set, checked as for training.

    Args:
        files: that the cells of the image column may name, see [`~diffusers_tpo.image_files.files_of`].

    Raises:
        UserError: naming a wrong column or row.
    """
    if number is not None and number < 1:
        raise UserError(f"the number of held-out pairs must be at least 1, got {number}")
    check_columns(rows, columns, "tdpo")
    rows = rows.select(range(len(rows) if number is None else min(number, len(rows))))
    if len(rows) == 0:
        raise UserError("the data set of held-out pairs holds no rows; choose another split")
    prompts, principles = [], []
    used = columns.used(rows.column_names, "tdpo", unpaired=False)
    rows = rows.with_format(None).select_columns(used)
    for index, row in enumerate(texts_of(rows.select_columns([name for name in used if name != columns.image]))):
        check_text(row, index, columns, "tdpo", unpaired=False)
        prompts.append([row[columns.prompt], *row[columns.mismatched]])
        principles.append(row.get(columns.principles) or [""] * len(row[columns.mismatched]))
    rows = rows.cast_column(columns.image, datasets.Image(decode=False))
    return HeldOutPairs(rows, columns.image, prompts, principles, resolution, files)
