"""What a stranger may read of names, paths, secrets and settings. Knows nothing of who shows them."""

import re
import shlex
from pathlib import Path


HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
SOURCES = {
    "pretrained_model_name_or_path": "model",
    "pretrained_vae_model_name_or_path": "model",
    "dataset_name": "data set",
    "train_data_dir": "data set",
    "bnb_quantization_config_path": "configuration",
}


def public_name(name: str, what: str) -> str:
    """A Hub id as it is; a local path becomes "a local `what`", so that a card never shows a user's folders."""
    return (
        f"a local {what}" if Path(name).exists() or name.count("/") > 1 or name.startswith((".", "/", "~")) else name
    )


def short_name(name: str) -> str:
    """A Hub id as it is; of a local path only its last part."""
    return name if public_name(name, "") == name else Path(name).name


def without_secrets(text: str, *secrets: str | None) -> str:
    """The text with `***` for each secret, and for what looks like a token of the Hub."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return HUB_TOKEN.sub("hf_***", text)


def public_command(argv: list[str], secrets: tuple[str | None, ...] = ()) -> str:
    """A command line without `secrets`, and with only the last part of every absolute, home or upward path."""
    words = Path(argv[0]).name.split()  # a command of diffusers-tpo is two
    for word in argv[1:]:
        word = without_secrets(word, *secrets)
        *names, value = word.split("=")
        is_private = value.startswith(("/", "~")) or ".." in Path(value).parts
        words.append("=".join([*names, Path(value).name if is_private else value]))
    return shlex.join(words)


def public_config(*groups: dict) -> dict[str, object]:
    """Joins groups of arguments into one dictionary without unset values and without local paths."""
    joined = {name: value for group in groups for name, value in group.items()}
    joined = {
        name: value for name, value in joined.items() if value is not None and value is not False and value != []
    }
    return {name: _public(value, SOURCES[name]) if name in SOURCES else value for name, value in joined.items()}


def _public(value: str | list[str], what: str) -> str | list[str]:
    return [public_name(one, what) for one in value] if isinstance(value, list) else public_name(value, what)
