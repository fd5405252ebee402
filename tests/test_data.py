"""Loading, checking and reading text-preference data sets."""

import io
import itertools
import json
import struct
import warnings
import zlib

import datasets
import numpy as np
import pyarrow
import pytest
import tiny
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from conftest import reset_accelerate
from PIL import Image
from torch.utils.data import DataLoader

from diffusers_tpo import Draw
from diffusers_tpo.data.batch import collate
from diffusers_tpo.data.crops import is_mirrored, transform_image
from diffusers_tpo.data.dataset import as_torch_dataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, check_columns, load_rows
from diffusers_tpo.decoding import decode_image, upright_size
from diffusers_tpo.errors import UserError
from diffusers_tpo.files import is_missing_path
from diffusers_tpo.image_files import HubFiles, LocalFiles
from diffusers_tpo.models.loading import load_pipeline
from diffusers_tpo.training.loader import Place, PlacedLoader


def reader(rows, loss_type: str = "tdpo", **settings) -> RowReader:
    columns = settings.pop("columns", Columns())
    unpaired = check_columns(rows, columns, loss_type)
    defaults = {"resolution": tiny.RESOLUTION, "files": LocalFiles()}
    return RowReader(columns, loss_type, unpaired, seed=0, **(defaults | settings))


def dataset_of(rows, loss_type: str = "tdpo", max_samples: int | None = None, **settings):
    return as_torch_dataset(rows, reader(rows, loss_type, **settings), max_samples)


def as_bytes(image: Image.Image, format: str = "PNG", **options) -> dict:
    file = io.BytesIO()
    image.save(file, format, **options)
    return {"bytes": file.getvalue(), "path": None}


# Loading


def parquet(folder, rows):
    rows.to_parquet(folder / "train-00000-of-00001.parquet")


def imagefolder(folder, rows):
    lines = []
    for index, row in enumerate(rows):
        row.pop("image").save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", **row}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def save_to_disk(folder, rows):
    rows.save_to_disk(folder)


def save_dict_to_disk(folder, rows):
    datasets.DatasetDict({"train": rows}).save_to_disk(folder)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("write", [parquet, imagefolder, save_to_disk, save_dict_to_disk])
def test_local_folders_load(tmp_path, write, streaming):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, tiny.make_dataset(3))
    rows = load_rows(str(folder), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    read = list(dataset_of(rows, num_mismatched=2))
    assert {row.prompts[0] for row in read} == {"cat 0", "cat 1", "cat 2"}
    for row in read:
        number = row.prompts[0][-1]
        assert set(row.prompts[1:]) == {f"dog {number}", f"{number} red cats"}
        expected = np.asarray(tiny.make_images(3)[int(number)]).transpose(2, 0, 1) / 127.5 - 1
        assert np.abs(row.crop.pixels.numpy() - expected).max() < 0.01


@pytest.mark.parametrize("name", ["{tmp}/nowhere", "./nowhere", "../nowhere", "~/nowhere", "quickstart/dat", "a/b/c"])
def test_a_mistyped_folder_is_refused_without_asking_the_hub(tmp_path, name, monkeypatch):
    (tmp_path / "quickstart" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset_builder", None)
    with pytest.raises(UserError, match="^--train_data_dir '.*' cannot be loaded .there is no such folder"):
        load_rows(name.format(tmp=tmp_path), argument="train_data_dir")
    (tmp_path / "quickstart" / "model").mkdir()
    with pytest.raises(
        UserError, match="^--pretrained_model_name_or_path '.*' cannot be loaded .there is no such folder"
    ):
        load_pipeline(name.format(tmp=tmp_path))


@pytest.mark.parametrize("name", ["name/repo", "repo", "https://example.com/rows", "quickstart/data"])
def test_a_name_on_the_hub_and_a_folder_that_is_there_are_no_missing_paths(tmp_path, name, monkeypatch):
    (tmp_path / "quickstart" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_missing_path(name)


def test_a_split_that_does_not_exist_is_a_user_error(tmp_path):
    save_dict_to_disk(tmp_path / "data", tiny.make_dataset(2))
    with pytest.raises(UserError, match="with split 'test' cannot be loaded"):
        load_rows(str(tmp_path / "data"), split="test")


# Checking


@pytest.mark.parametrize(
    ("flag", "columns"),
    [
        ("image_column", Columns(image="picture")),
        ("caption_column", Columns(prompt="text")),
        ("negative_prompts_column", Columns(mismatched="wrong")),
    ],
)
def test_an_unknown_column_is_a_user_error_that_lists_the_columns(flag, columns):
    with pytest.raises(UserError, match=f"{flag} '.*' is not a column of the data set; it has image, prompt, neg"):
        check_columns(tiny.make_dataset(2), columns, "tdpo")


@pytest.mark.parametrize("kind", [datasets.Value("string"), datasets.Image()])
def test_a_list_of_addresses_is_refused_and_nothing_is_downloaded(kind, tmp_path):
    """With a look at the first row where that is to be had, and else when the row is read."""
    rows = datasets.Dataset.from_dict(
        tiny.make_rows(2) | {"image": ["https://example.com/0.png", "https://example.com/1.png"]}
    )
    rows = rows.cast_column("image", kind)
    with pytest.raises(UserError, match="^--image_column 'image' holds addresses of images, which are not downloaded"):
        check_columns(rows, Columns(), "tdpo")
    for files in (LocalFiles(tmp_path), HubFiles("me/data")):
        reader = RowReader(Columns(), "tdpo", False, seed=0, resolution=tiny.RESOLUTION, files=files)
        with pytest.raises(
            UserError, match=r"^row \d: .*names the address .https://example.com/\d.png., and nothing is down"
        ):
            as_torch_dataset(rows, reader)[0]


def test_which_columns_a_loss_needs():
    paired, unpaired = tiny.make_dataset(2), tiny.make_dataset(2, negative_prompts=None, label=[True, False])
    assert not check_columns(paired, Columns(), "tkto")
    assert check_columns(unpaired, Columns(), "tkto")
    assert not check_columns(tiny.make_dataset(2, negative_prompts=None), Columns(), "sft")
    for loss_type, rows in (("tdpo", unpaired), ("tkto", tiny.make_dataset(2, negative_prompts=None))):
        with pytest.raises(UserError, match="negative_prompts_column 'negative_prompts' is not a column"):
            check_columns(rows, Columns(), loss_type)


def test_columns_can_have_other_names():
    rows = tiny.make_dataset(2).rename_columns({"image": "jpg", "prompt": "text", "negative_prompts": "wrong"})
    read = dataset_of(rows, columns=Columns(image="jpg", prompt="text", mismatched="wrong"))[0]
    assert read.prompts[0].startswith("cat") and len(read.prompts) == 2


@pytest.mark.parametrize("streaming", [False, True])
def test_an_empty_data_set_is_a_user_error(streaming):
    rows = tiny.make_dataset(2)
    rows = rows.to_iterable_dataset().take(0) if streaming else rows.select([])
    with pytest.raises(UserError, match="holds no rows in this split"):
        list(dataset_of(rows))


WRONG_TEXT = {
    "no prompt": ({"prompt": ["cat", " "]}, "row 1: column 'prompt' must hold a prompt, got ' '"),
    "null prompt": ({"prompt": ["cat", None]}, "row 1: column 'prompt' must hold a prompt, got None"),
    "equal": ({"negative_prompts": [["a", "b"], ["a", " cat 1 "]]}, "row 1: a mismatched prompt equals its prompt"),
    "lengths": (
        {"negative_prompts": [["a", "b"], ["a"]]},
        "row 1: columns 'principles' and .* same length, got 2 and 1",
    ),
    "none": (
        {"negative_prompts": [["a", "b"], []]},
        "row 1: column 'negative_prompts' must be a list of at least one",
    ),
    "null": ({"negative_prompts": [["a", "b"], None]}, "row 1: column 'negative_prompts' must be a list"),
    "empty": ({"negative_prompts": [["a", "b"], ["", "a"]]}, "row 1: column 'negative_prompts' holds '', which is no"),
    "text": ({"negative_prompts": ["a dog", "a car"]}, "row 0: column 'negative_prompts' must be a list"),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("case", WRONG_TEXT)
def test_wrong_text_is_a_user_error_that_names_the_row(case, streaming):
    columns, message = WRONG_TEXT[case]
    rows = tiny.make_dataset(2, **columns)
    if streaming:  # a streamed row is known by its place, which the shuffling decides
        rows, message = rows.to_iterable_dataset(), message.split(": ", 1)[1]
    with pytest.raises(UserError, match=message):
        list(dataset_of(rows))


@pytest.mark.parametrize("label", [2, -1, None])
def test_a_wrong_label_is_a_user_error_that_names_the_row(label):
    rows = tiny.make_dataset(2, negative_prompts=None, label=[1, label])
    with pytest.raises(UserError, match=f"row 1: column 'label' must be true or false, got {label}"):
        dataset_of(rows, "tkto")


@pytest.mark.parametrize("bad", [0, 1001])
def test_text_in_another_encoding_names_its_row_and_costs_no_other(bad):
    """Rows are read a thousand at a time."""
    prompts = [f"cat {number}".encode() for number in range(1002)]
    prompts[bad] = b"caf\xe9"
    columns = {"image": [{"bytes": b"", "path": None}] * 1002, "negative_prompts": [["dog"]] * 1002}
    table = pyarrow.table(columns | {"prompt": pyarrow.array(prompts).view(pyarrow.string())})
    rows = datasets.Dataset(table).cast_column("image", datasets.Image())
    with pytest.raises(UserError, match=f"^row {bad}: its text is not encoded in UTF-8"):
        dataset_of(rows)
    dataset = dataset_of(rows, on_bad_row="skip")
    assert list(dataset.skipped) == [bad] and len(dataset) == 1001
    assert len(dataset.prompts()) == 1002 and "cat 500" in dataset.prompts()


def test_unpaired_rows_have_one_prompt_and_their_label():
    rows = tiny.make_dataset(4, negative_prompts=None, label=[True, False, False, True])
    read = {row.prompts[0]: row.is_matched for row in dataset_of(rows, "tkto")}
    assert read == {"cat 0": [True], "cat 1": [False], "cat 2": [False], "cat 3": [True]}


def broken_rows() -> datasets.Dataset:
    cells = [as_bytes(image) for image in tiny.make_images(3)]
    cells[1]["bytes"] = cells[1]["bytes"][:60]
    return tiny.make_dataset(3, image=cells)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_a_user_error_that_names_the_row(workers):
    with pytest.raises(UserError, match="row 1: its image cannot be read"):
        list(DataLoader(dataset_of(broken_rows()), 1, collate_fn=collate, num_workers=workers))


@pytest.mark.parametrize("value", [None, {"bytes": b"", "path": None}, {"bytes": None, "path": "/nowhere.png"}])
def test_a_missing_image_is_a_user_error(value):
    with pytest.raises(UserError, match="row 7: its image cannot be read"):
        decode_image(value, 7)


# Images


def corner(value) -> tuple:
    return decode_image(value, 0).getpixel((0, 0))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, pixels: bytes, before=(), after=()) -> dict:
    """A PNG file written by hand: what Pillow cannot write, or one that lies; `pixels` are raw scan lines."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    parts = [header, *before, chunk(b"IDAT", zlib.compress(pixels)), *after, chunk(b"IEND", b"")]
    return {"bytes": b"\x89PNG\r\n\x1a\n" + b"".join(parts), "path": None}


GREY, COLOR, PALETTE, GREY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6


def two(value, size=(1, 2)) -> list[tuple]:
    """The pixels of an image of height 1 and width 2, or as `size` says."""
    image = np.asarray(decode_image(value, 0))
    assert upright_size(value, 0) == image.shape[:2] == size
    return [tuple(pixel) for pixel in image.reshape(2, 3).tolist()]


def test_every_image_mode_becomes_rgb():
    size = (4, 4)
    palette = Image.new("RGB", size, (255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE)
    grey16 = Image.fromarray(np.full(size, 128 * 256 + 5, dtype=np.uint16))
    assert corner(as_bytes(Image.new("L", size, 90))) == (90, 90, 90)
    assert corner(as_bytes(Image.new("1", size, 1))) == (255, 255, 255)
    assert corner(as_bytes(palette)) == (255, 0, 0)
    assert corner(as_bytes(grey16)) == (128, 128, 128)  # scaled, not clipped to white
    assert corner(as_bytes(grey16, "TIFF")) == (128, 128, 128)
    assert corner(as_bytes(Image.new("CMYK", size, (0, 0, 0, 255)), "TIFF")) == (0, 0, 0)
    assert corner(as_bytes(Image.new("CMYK", size, (255, 0, 0, 0)), "JPEG", quality=100)) == (0, 255, 255)
    assert corner(Image.new("RGB", size, (1, 2, 3))) == (1, 2, 3)


def test_sixteen_bits_per_channel_are_scaled():
    """Two pixels each: the high byte of every channel stays; alpha is laid over white."""
    grey = struct.pack(">x2H", 0x8005, 0x00FF)
    assert two(png(2, 1, 16, GREY, grey)) == [(128, 128, 128), (0, 0, 0)]
    color = struct.pack(">x6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0, 0x8000)
    assert two(png(2, 1, 16, COLOR, color)) == [(0x12, 0x56, 0x9A), (255, 0, 128)]
    grey_alpha = struct.pack(">x4H", 0x8005, 0xFFFF, 0x1000, 0)
    assert two(png(2, 1, 16, GREY_ALPHA, grey_alpha)) == [(128, 128, 128), (255, 255, 255)]
    color_alpha = struct.pack(">x8H", 0x8005, 0, 0, 0xFFFF, 0, 0, 0, 0x8000)
    assert two(png(2, 1, 16, COLOR_ALPHA, color_alpha)) == [(128, 0, 0), (127, 127, 127)]


def test_transparency_becomes_white():
    size = (4, 4)
    assert corner(as_bytes(Image.new("RGBA", size, (255, 0, 0, 0)))) == (255, 255, 255)
    assert corner(as_bytes(Image.new("RGBA", size, (255, 0, 0, 255)))) == (255, 0, 0)
    assert corner(as_bytes(Image.new("RGBA", size, (255, 0, 0, 51)))) == (255, 204, 204)  # a fifth red
    assert corner(as_bytes(Image.new("LA", size, (0, 0)))) == (255, 255, 255)
    palette = Image.new("RGB", size, (255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert corner(as_bytes(palette, transparency=palette.getpixel((0, 0)))) == (255, 255, 255)
    assert corner(as_bytes(Image.new("RGBA", size, (255, 0, 0, 0)), "WEBP", lossless=True)) == (255, 255, 255)


def test_one_transparent_colour_becomes_white():
    """The first of two pixels has it; a palette may also be half transparent."""
    white, black = (255, 255, 255), (0, 0, 0)
    colour = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    assert two(png(2, 1, 8, COLOR, bytes([0, 1, 2, 3, 4, 5, 6]), [colour])) == [white, (4, 5, 6)]
    for depth, value, pixels, other in (
        (1, 0, bytes([0, 0b01000000]), white),
        (8, 9, bytes([0, 9, 10]), (10, 10, 10)),
        (16, 0x8005, struct.pack(">x2H", 0x8005, 0x00FF), black),
    ):
        assert two(png(2, 1, depth, GREY, pixels, [chunk(b"tRNS", struct.pack(">H", value))])) == [white, other]
    palette = [chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])), chunk(b"tRNS", bytes([0, 128]))]
    assert two(png(2, 1, 8, PALETTE, bytes([0, 0, 1]), palette)) == [white, (127, 127, 255)]


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_an_animation_gives_its_first_frame(format, options):
    red, green = (Image.new("RGB", (8, 4), color) for color in ((255, 0, 0), (0, 255, 0)))
    value = as_bytes(red, format, save_all=True, append_images=[green], **options)
    assert Image.open(io.BytesIO(value["bytes"])).n_frames == 2
    assert corner(value) == (255, 0, 0) and upright_size(value, 0) == (4, 8)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_exif_orientation_is_applied(format, orientation):
    """Red is on the left of the stored image; 6 and 8 say that the camera was turned, 5 and 7 that it saw a mirror."""
    stored = Image.new("RGB", (32, 16), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    value = as_bytes(stored, format, exif=exif, quality=100)
    upright = decode_image(value, 0)
    size = (16, 32) if orientation >= 5 else (32, 16)
    assert upright.size == size and upright_size(value, 0) == size[::-1]
    red, blue = {1: ((8, 8), (24, 8)), 3: ((24, 8), (8, 8))}.get(orientation, ((8, 4), (8, 28)))
    if orientation in (7, 8):
        red, blue = blue, red
    assert upright.getpixel(red)[0] > 200 and upright.getpixel(blue)[2] > 200


EXIF_TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # one tag: orientation 6
XMP_TURNED = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("text", [chunk(b"eXIf", EXIF_TURNED), chunk(b"iTXt", XMP_TURNED)], ids=["exif", "xmp"])
def test_the_size_is_upright_wherever_a_png_says_so(place, text):
    value = png(2, 1, 8, COLOR, bytes([0, 1, 2, 3, 4, 5, 6]), **{place: [text]})
    assert two(value, size=(2, 1)) == [(1, 2, 3), (4, 5, 6)]


def test_the_size_comes_from_the_header_alone(tmp_path):
    value = as_bytes(ramp(48, 16))
    (tmp_path / "image.png").write_bytes(value["bytes"][:60])  # no pixels
    for cell in ({"bytes": value["bytes"][:60], "path": None}, {"bytes": None, "path": str(tmp_path / "image.png")}):
        assert upright_size(cell, 0, LocalFiles()) == (16, 48)
    with pytest.raises(UserError, match="row 7: its image cannot be read"):
        upright_size({"bytes": value["bytes"][:20], "path": None}, 7)


@pytest.mark.parametrize("read", [decode_image, upright_size])
@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of the first and refuses the second
def test_a_decompression_bomb_is_refused_before_it_is_decoded(read, side):
    """Its few bytes of pixels would be a truncated image, if they were looked at."""
    value = png(side, side, 8, COLOR, b"\0" * 100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        limit = f"its image has {side**2} pixels, more than the {Image.MAX_IMAGE_PIXELS} that are safe to decode"
        with pytest.raises(UserError, match=f"^row 7: {limit}; make it smaller or remove this row$"):
            read(value, 7)
    assert not caught


def test_as_many_pixels_as_pillow_allows_are_read(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_image(as_bytes(Image.new("RGB", (10, 10))), 0).size == (10, 10)
    for width in (11, 20, 21):
        with pytest.raises(UserError, match=f"row 3: its image has {width}0 pixels, more than the 100 that"):
            decode_image(as_bytes(Image.new("RGB", (width, 10))), 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_image(as_bytes(Image.new("RGB", (21, 10))), 0).size == (21, 10)


def test_an_image_that_would_become_huge_is_refused():
    with pytest.raises(UserError, match="row 5: its image of height 1 and width 4000 is too thin to cover 512x512"):
        transform_image(Image.new("RGB", (4000, 1)), Draw(0, 5), (512, 512), True, False)


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 4, y * 4, 0 * x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("crop", [(16, 16), (16, 24), (24, 16), (8, 40)])
@pytest.mark.parametrize("size", [(48, 16), (16, 48), (8, 8), (17, 16), (33, 50), (1, 30)])
def test_any_size_becomes_a_crop_in_minus_one_to_one(size, crop):
    cut = transform_image(ramp(*size), Draw(0, 0), crop, center_crop=False, mirror=True)
    assert cut.pixels.shape == (3, *crop) and cut.pixels.dtype == torch.float32
    assert cut.pixels.min() >= -1 and cut.pixels.max() <= 1
    assert cut.sizes[:2] == (size[1], size[0]) and cut.sizes[4:] == crop


def as_pixels(array: np.ndarray) -> torch.Tensor:
    return 2 * torch.from_numpy(array.transpose(2, 0, 1).astype(np.float32) / 255) - 1


SIDES = {
    (48, 16): (48, 16),
    (16, 48): (16, 48),
    (8, 8): (16, 16),
    (17, 16): (17, 16),
    (33, 50): (16, 24),
    (3, 5): (16, 27),
}


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("size", SIDES)
def test_a_square_is_cut_from_the_image_whose_shorter_side_has_its_length(size, center):
    """To the last bit; `SIDES` holds the sizes after resizing, such as 33x50 to 16x24.2."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    resized = np.asarray(image.resize(SIDES[size], Image.Resampling.LANCZOS))
    for row in range(4):
        generator = Draw(0, row).generator("crop")
        slack = [side - 16 for side in SIDES[size]]
        left, top = [s // 2 if center else int(torch.randint(s + 1, (), generator=generator)) for s in slack]
        expected = resized[top : top + 16, left : left + 16]
        flipped = bool(torch.rand((), generator=Draw(0, row).generator("flip")) < 0.5)
        if flipped:
            expected = expected[:, ::-1]
        cut = transform_image(image, Draw(0, row), (16, 16), center, is_mirrored(Draw(0, row)))
        assert torch.equal(cut.pixels, as_pixels(expected))
        assert cut.sizes == (size[1], size[0], top, slack[0] - left if flipped else left, 16, 16)


def test_a_crop_covers_as_much_of_the_image_as_fits():
    """A 64x32 ramp becomes 32x16 for a crop of 16x24: all rows, and 24 of 32 columns from the fourth on."""
    cut = transform_image(ramp(64, 32), Draw(0, 0), (16, 24), center_crop=True, mirror=False)
    resized = np.asarray(ramp(64, 32).resize((32, 16), Image.Resampling.LANCZOS))
    assert torch.equal(cut.pixels, as_pixels(resized[:, 4:28]))
    assert cut.sizes == (32, 64, 0, 4, 16, 24)
    tall = transform_image(ramp(64, 32), Draw(0, 0), (32, 16), center_crop=True, mirror=False)
    assert tall.sizes == (32, 64, 0, 24, 32, 16)  # not resized: its columns 24 to 40
    assert torch.equal(tall.pixels, as_pixels(np.asarray(ramp(64, 32))[:, 24:40]))


def test_the_centre_crop_is_the_middle_and_random_crops_move():
    image = ramp(48, 16)

    def left(draw, center):
        return round((transform_image(image, draw, (16, 16), center, False).pixels[0, 0, 0].item() + 1) * 127.5 / 4)

    assert left(Draw(0, 0), True) == 16
    lefts = [left(Draw(0, row), False) for row in range(200)]
    assert min(lefts) <= 1 and max(lefts) >= 31 and abs(sum(lefts) / 200 - 16) < 3


def test_the_sizes_say_where_the_pixels_come_from():
    """A 64x32 ramp becomes 32x16; its pixel at the top left of the square tells its column, mirrored or not."""
    image = ramp(64, 32)
    for row in range(20):
        plain, flipped = (
            transform_image(image, Draw(0, row), (16, 16), False, flip) for flip in (False, is_mirrored(Draw(0, row)))
        )
        height, width, top, left, *crop = flipped.sizes
        assert (height, width, top, crop) == (32, 64, 0, [16, 16])
        if torch.equal(plain.pixels, flipped.pixels):
            assert plain.sizes == flipped.sizes
        else:  # the crop is seen in the mirrored image
            assert torch.equal(plain.pixels.flip(-1), flipped.pixels) and left == 16 - plain.sizes[3]
    resized = image.resize((32, 16), Image.Resampling.LANCZOS)
    shown = round((plain.pixels[0, 0, 0].item() + 1) * 127.5)
    assert abs(shown - resized.getpixel((plain.sizes[3], 0))[0]) <= 1


def test_the_flip_mirrors_half_of_the_images():
    plain = transform_image(ramp(16, 16), Draw(0, 0), (16, 16), False, False).pixels
    draws = [Draw(0, row) for row in range(200)]
    flips = [transform_image(ramp(16, 16), draw, (16, 16), False, is_mirrored(draw)).pixels for draw in draws]
    mirrored = [torch.equal(pixels, plain.flip(-1)) for pixels in flips]
    assert all(m or torch.equal(pixels, plain) for m, pixels in zip(mirrored, flips, strict=True))
    assert 70 < sum(mirrored) < 130


# Rows and batches


def pixels_by_prompt(dataset, **loader) -> dict:
    batches = DataLoader(dataset, 2, collate_fn=collate, **loader)
    return {p: x for batch in batches for p, x in zip(batch.prompts, batch.pixels, strict=False)}


def test_crop_and_flip_depend_on_row_and_epoch_alone():
    rows = tiny.make_dataset(6, image=[ramp(40, 24)] * 6)
    dataset = dataset_of(rows, random_flip=True)
    first = pixels_by_prompt(dataset)
    for other in (
        pixels_by_prompt(dataset, shuffle=True),
        pixels_by_prompt(dataset, num_workers=2),
        {row.prompts[0]: row.crop.pixels for row in dataset},
    ):
        assert first.keys() == other.keys() and all(torch.equal(first[prompt], other[prompt]) for prompt in first)
    dataset.begin_epoch(1)
    second = pixels_by_prompt(dataset)
    assert not any(torch.equal(first[prompt], second[prompt]) for prompt in ("cat 0", "cat 1"))
    assert len({x.numpy().tobytes() for x in first.values()}) > 3  # rows differ from one another
    dataset.begin_epoch(0)
    again = pixels_by_prompt(dataset)
    assert all(torch.equal(first[prompt], again[prompt]) for prompt in first)


def test_every_epoch_has_another_order_of_all_rows():
    dataset = dataset_of(tiny.make_dataset(8))
    orders = []
    for epoch in (0, 1, 0):
        dataset.begin_epoch(epoch)
        orders.append([row.draw.row for row in dataset])
        assert {row.draw.number for row in dataset} == {epoch}
    assert orders[0] == orders[2] != orders[1]
    assert all(sorted(order) == list(range(8)) for order in orders)


def test_more_mismatched_prompts_than_there_are_begin_again():
    for row in dataset_of(tiny.make_dataset(4), num_mismatched=5):
        first, second, *rest = row.prompts[1:]
        assert first != second and rest == [first, second, first]


def test_one_of_several_mismatched_prompts_is_drawn_anew_in_every_epoch():
    dataset, seen = dataset_of(tiny.make_dataset(2)), set()
    for epoch in range(12):
        dataset.begin_epoch(epoch)
        seen |= {prompt for row in dataset for prompt in row.prompts[1:]}
    assert seen == {"dog 0", "0 red cats", "dog 1", "1 red cats"}


def test_principles_choose_among_the_mismatched_prompts():
    rows = tiny.make_dataset(4)
    assert all("red" in row.prompts[1] for row in dataset_of(rows, principles=("attribute", "spatial")))
    with pytest.raises(UserError, match=r"row \d: no mismatched prompt follows spatial; widen --principles"):
        list(dataset_of(rows, principles=("spatial",)))
    without = tiny.make_dataset(4, principles=None)
    assert len(list(dataset_of(without))) == 4


def test_max_samples_takes_the_first_rows():
    rows = tiny.make_dataset(6)
    for source in (rows, rows.to_iterable_dataset()):
        assert {row.prompts[0] for row in dataset_of(source, max_samples=2)} == {"cat 0", "cat 1"}
    assert len(dataset_of(rows, max_samples=99)) == 6


def test_sft_reads_the_matched_prompt_and_empties_some():
    rows = tiny.make_dataset(2, negative_prompts=None, principles=None)
    assert all(row.prompts[0].startswith("cat") and row.is_matched == [True] for row in dataset_of(rows, "sft"))
    dataset, empty = dataset_of(rows, "sft", proportion_empty_prompts=0.5), 0
    for epoch in range(100):
        dataset.begin_epoch(epoch)
        empty += sum(row.prompts == [""] for row in dataset)
    assert 70 < empty < 130


def test_a_batch_lies_in_blocks():
    dataset = dataset_of(tiny.make_dataset(3), num_mismatched=2)
    rows = [dataset[index] for index in range(3)]
    batch = collate(rows)
    assert batch.pixels.shape == (3, 3, tiny.RESOLUTION, tiny.RESOLUTION)
    assert batch.prompts == [row.prompts[k] for k in range(3) for row in rows]
    assert batch.is_matched.tolist() == [True] * 3 + [False] * 6
    assert batch.prompts_per_image == 3 and batch.draws == [row.draw for row in rows]


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_reads_every_row_once_whatever_the_workers(tmp_path, workers):
    """One file has one shard, so one of two workers has nothing to read."""
    parquet(tmp_path, tiny.make_dataset(5))
    rows = load_rows(str(tmp_path), streaming=True, cache_dir=str(tmp_path / "cache"))
    batches = DataLoader(dataset_of(rows), 1, collate_fn=collate, num_workers=workers)
    assert sorted(batch.prompts[0] for batch in batches) == [f"cat {i}" for i in range(5)]


def test_streamed_rows_of_several_workers_draw_different_noise(tmp_path):
    for shard in range(2):
        tiny.make_dataset(2).to_parquet(tmp_path / f"train-{shard:05d}-of-00002.parquet")
    rows = load_rows(str(tmp_path), streaming=True, cache_dir=str(tmp_path / "cache"))
    draws = [row.draws[0] for row in DataLoader(dataset_of(rows), 1, collate_fn=collate, num_workers=2)]
    assert len(draws) == 4 and len(set(draws)) == 4


def first_batches(rows, used: int, number: int, workers: int = 0, **settings) -> list:
    """As the training script reads them in the second epoch, of which `used` batches have been used."""
    reset_accelerate()
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False))
    dataset = dataset_of(rows, random_flip=True, **settings)
    loader = PlacedLoader(dataset, 2, 1, accelerator, workers)
    taken = list(itertools.islice(loader.after(Place(1, used)), number))
    reset_accelerate()
    return [(place, batch.draws, batch.prompts, batch.pixels.tolist()) for batch, place in taken]


@pytest.mark.parametrize(
    ("streaming", "workers", "on_bad_row"),
    [(False, 0, "skip"), (False, 1, "error"), (True, 0, "error"), (True, 0, "skip"), (True, 2, "error")],
)
def test_a_resumed_run_goes_on_with_the_same_batches_and_decodes_none_before(
    tmp_path, monkeypatch, streaming, workers, on_bad_row
):
    """Of two files, so that a data worker ends long before the other; with 12 rows, the last batches are of another epoch."""
    for shard, number in enumerate((2, 10)):
        tiny.make_dataset(number).to_parquet(tmp_path / f"train-{shard:05d}-of-00002.parquet")
    rows = load_rows(str(tmp_path), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    whole = first_batches(rows, 0, 8, workers, on_bad_row=on_bad_row)
    decoded = []
    monkeypatch.setattr(
        "diffusers_tpo.data.reader.decode_image",
        lambda cell, row, files: decoded.append(row) or decode_image(cell, row, files),
    )
    for used in (1, 4, 5):
        assert first_batches(rows, used, 3, workers, on_bad_row=on_bad_row) == whole[used : used + 3]
    if workers == 0 and not (streaming and on_bad_row == "skip"):
        assert len(decoded) <= 3 * 2 * 5  # three times three batches, and what is read ahead


def test_a_folder_built_anew_is_read_anew(tmp_path):
    """Its card, which is all that `datasets` looks at, stays the same."""
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    files = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
    (folder / "README.md").write_text(f"---\n{files}---\n")
    for text in ("first", "second"):
        datasets.Dataset.from_dict({"prompt": [text]}).to_parquet(folder / "data" / "train-0.parquet")
        for streaming in (False, True):
            rows = load_rows(str(folder), cache_dir=str(tmp_path / "cache"), streaming=streaming)
            assert [row["prompt"] for row in rows] == [text]
