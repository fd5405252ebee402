"""Captions in text files beside their images: only those of the folder are read."""

import pytest
from PIL import Image

from diffusers_tpo.data import folders
from diffusers_tpo.data.rows import load_rows
from diffusers_tpo.errors import UserError


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, text in {"a": "a red cat\non a mat\n", "b": "two dogs"}.items():
        Image.new("RGB", (16, 16), "red").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(text)
    return folder


def captions(folder) -> list[str]:
    return load_rows(str(folder))["prompt"]


def test_each_image_has_the_text_of_its_file(pictures):
    Image.new("RGB", (16, 16), "red").save(pictures / "without.png")
    assert captions(pictures) == ["a red cat on a mat", "two dogs"]


def test_a_link_out_of_the_folder_is_not_followed(pictures, tmp_path):
    secret = tmp_path / "id_rsa"
    secret.write_text("a key")
    (pictures / "b.txt").unlink()
    (pictures / "b.txt").symlink_to(secret)
    with pytest.raises(UserError, match="b.txt' is a link out of the data set's folder"):
        captions(pictures)


def test_links_inside_a_folder_and_into_a_cache_of_blobs_are_followed(pictures, tmp_path):
    """A download of the Hub holds links to a folder of contents, images and texts alike."""
    (pictures / "b.txt").unlink()
    (pictures / "b.txt").symlink_to(pictures / "a.txt")
    assert captions(pictures) == ["a red cat on a mat"] * 2
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for number, path in enumerate(sorted(pictures.iterdir())):
        (blobs / f"{number:040d}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blobs / f"{number:040d}")
    assert captions(snapshot) == ["a red cat on a mat"] * 2


def test_a_text_that_is_too_long_or_no_text_is_named(pictures, monkeypatch):
    monkeypatch.setattr(folders, "LARGEST_CAPTION", 20)
    (pictures / "b.txt").write_text("é" * 11)
    with pytest.raises(UserError, match="b.txt' has more than 20 bytes"):
        captions(pictures)
    (pictures / "b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="b.txt' is not encoded in UTF-8"):
        captions(pictures)
