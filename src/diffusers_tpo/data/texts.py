"""Checks the prompts and the label of one row, and says what they mean. Knows nothing of images or of other rows."""

import re
import unicodedata

from ..errors import BadRow
from ..show import shorten
from .rows import Columns


LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # no tokenizer takes it
LONGEST_PROMPT = 10_000  # characters, more than any text encoder reads; a whole book would take minutes and gigabytes
LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def label_of(value: object) -> bool | None:
    """Whether a label says matched: true, 1, 1.0 and "true" do, false, 0, 0.0 and "false" do not; `None` for all else."""
    if isinstance(value, bool | int | float):
        return bool(value) if value in (0, 1) else None
    return LABELS.get(value.strip().casefold()) if isinstance(value, str) else None


def plain(text: str) -> str:
    """A text without what tells no two meanings apart: how many spaces it has, and how its characters are composed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def brief(value: object) -> str:
    """A value as it is shown in a message."""
    return shorten(repr(value[:400] if isinstance(value, str) else value), 200)


def fault_of(text: object) -> str | None:
    """What keeps a value from being a prompt, if anything does."""
    if not isinstance(text, str) or not text.strip():
        return f"{brief(text)}, which is no prompt"
    if len(text) > LONGEST_PROMPT:
        return f"a text of {len(text)} characters, more than the {LONGEST_PROMPT} that a prompt may have"
    if LONE_SURROGATE.search(text):
        return f"{brief(text)}, which is no text in Unicode"
    return None


def check_text(row: dict, row_id: int, columns: Columns, loss_type: str, unpaired: bool) -> None:
    """Checks the texts of one row.

    Raises:
        BadRow: naming the row and what is wrong with it.
    """
    if fault := fault_of(row.get(columns.prompt)):
        raise BadRow(f"row {row_id}: column {columns.prompt!r} must hold a prompt, got {fault}")
    if unpaired or (loss_type == "sft" and columns.label in row):
        check_label(row[columns.label] if columns.label in row else None, row_id, columns, loss_type)
    if not unpaired and loss_type != "sft":
        check_mismatched(row, row_id, columns)


def check_label(value: object, row_id: int, columns: Columns, loss_type: str) -> None:
    label = label_of(value)
    if label is None:
        other = " (--label_column names another column)" if loss_type == "sft" else ""
        raise BadRow(f"row {row_id}: column {columns.label!r} must be true or false, got {brief(value)}{other}")
    if loss_type == "sft" and not label:
        raise BadRow(f"row {row_id}: column {columns.label!r} is false, and sft learns every row; remove this row")


def check_mismatched(row: dict, row_id: int, columns: Columns) -> None:
    prompt: str = row[columns.prompt]
    mismatched, principles = row.get(columns.mismatched), row.get(columns.principles)
    if not isinstance(mismatched, list) or not mismatched:
        wanted = "must be a list of at least one prompt"
        raise BadRow(f"row {row_id}: column {columns.mismatched!r} {wanted}, got {brief(mismatched)}")
    for text in mismatched:
        if fault := fault_of(text):
            raise BadRow(f"row {row_id}: column {columns.mismatched!r} holds {fault}")
        if plain(text) == plain(prompt):
            raise BadRow(f"row {row_id}: a mismatched prompt equals its prompt {brief(prompt)}; remove it")
    if principles is None:
        return
    if not isinstance(principles, list):
        raise BadRow(f"row {row_id}: column {columns.principles!r} must be a list, got {brief(principles)}")
    if len(principles) != len(mismatched):
        raise BadRow(
            f"row {row_id}: columns {columns.principles!r} and {columns.mismatched!r} must have the same length, "
            f"got {len(principles)} and {len(mismatched)}"
        )


def allowed_mismatched(row: dict, columns: Columns, principles: tuple[str, ...]) -> list[str]:
    """A row's mismatched prompts that follow one of `principles`; all where the row names none."""
    prompts, names = row[columns.mismatched], row.get(columns.principles)
    return [p for p, name in zip(prompts, names, strict=True) if name in principles] if names else list(prompts)
