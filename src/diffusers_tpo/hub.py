"""Pushes a finished folder to the Hub. Knows nothing of what is in it."""

from pathlib import Path

from huggingface_hub import HfApi, create_repo, upload_folder
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from .errors import UserError


MODEL_IGNORED = ("checkpoint-*", ".partial-*", "logs/*", "validation/*")
DATASET_IGNORED = ("work/*", ".partial-*", "preview.html")


def own_name(repo: str, token: str | None) -> str:
    """A repository's full name: under the user's account if it names none.

    Raises:
        UserError: if the Hub does not know the user; better at the start of a run than at its end.
    """
    try:
        user = HfApi(token=token).whoami()["name"]
    except (HfHubHTTPError, LocalTokenNotFoundError, ConnectionError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"push_to_hub needs a valid token ({reason}); run `hf auth login` first") from error
    return repo if "/" in repo else f"{user}/{repo}"


def push_folder(folder: Path, repo: str, token: str | None, repo_type: str = "model", private: bool = False) -> str:
    """Uploads a folder without what only its making needed, and returns the repository's URL.

    Args:
        repo_type: "model" or "dataset".
        private: only if the repository is new.

    Raises:
        UserError: if the Hub refuses; the folder stays as it is, and the sentence holds the command that pushes it.
    """
    ignored = DATASET_IGNORED if repo_type == "dataset" else MODEL_IGNORED
    try:
        url = create_repo(repo, exist_ok=True, token=token, repo_type=repo_type, private=private)
        upload_folder(
            repo_id=url.repo_id, repo_type=repo_type, folder_path=folder, token=token, ignore_patterns=list(ignored)
        )
        return str(url)
    except (HfHubHTTPError, LocalTokenNotFoundError, ConnectionError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        exclude = " ".join(f"'{pattern}'" for pattern in ignored)
        kind = "" if repo_type == "model" else f" --repo-type {repo_type}"
        raise UserError(
            f"push_to_hub failed ({reason}), and nothing is lost: push it with hf upload {repo} {folder}{kind} "
            f"--exclude {exclude}"
        ) from error
