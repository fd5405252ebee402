"""Pushes a finished folder to the Hub. Knows nothing of what is in it."""

from pathlib import Path

from huggingface_hub import create_repo, upload_folder
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from .errors import UserError


IGNORED = ["checkpoint-*", ".partial-*", "logs/*", "validation/*"]


def push_folder(folder: Path, repo: str, token: str | None) -> str:
    """Uploads a folder without checkpoints and logs, and returns the repository's URL.

    Raises:
        UserError: if the Hub refuses; the folder stays as it is, and the sentence holds the command that pushes it.
    """
    try:
        url = create_repo(repo, exist_ok=True, token=token)
        upload_folder(repo_id=url.repo_id, folder_path=folder, token=token, ignore_patterns=IGNORED)
        return str(url)
    except (HfHubHTTPError, LocalTokenNotFoundError, ConnectionError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        exclude = " ".join(f"'{pattern}'" for pattern in IGNORED)
        raise UserError(
            f"push_to_hub failed ({reason}), and nothing is lost: push it with hf upload {repo} {folder} --exclude {exclude}"
        ) from error
