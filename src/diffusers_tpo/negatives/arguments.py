"""The flags of building mismatched prompts: names, defaults, ranges, help, and what does not go together. Knows nothing of what they do."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ..chat import HUGGING_FACE_ROUTER
from ..errors import UserError
from ..flags import AtLeastOne, NotNegativeNumber, PositiveNumber, Range, Share, flag
from ..principles import PRINCIPLES


PrincipleName = Literal["content", "attribute", "spatial", "contextual"]
Few = Annotated[int, Range(at_least=1, at_most=100)]
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]
Many = Annotated[int, Range(at_least=1, at_most=1_000_000)]


@dataclass
class SourceArguments:
    """Where the captions come from."""

    dataset_name: str | None = flag(None, "Hub id, or a local folder: imagefolder, parquet or save_to_disk.")
    captions_file: str | None = flag(None, "A file of captions: .txt with one a line, .csv, .jsonl or .parquet.")
    shapes_rows: Many | None = flag(None, "So many captions and images of the embedded shapes world.")
    dataset_config_name: str | None = flag(None, "Configuration of the data set.")
    dataset_split: str = flag("train", "Split to read.")
    dataset_revision: str | None = flag(None, "Revision of the data set on the Hub.")
    caption_column: str | None = flag(
        None, "Column of the captions; the first of prompt, text and caption by default."
    )
    image_column: str | None = flag(None, "Column of the images; image by default, if there is one.")
    key_column: str | None = flag(
        None, "Column whose values name the rows in the result; the row's number by default."
    )
    max_samples: AtLeastOne | None = flag(None, "Use only the first rows.")
    near_duplicates: Literal["ignore", "count", "remove"] = flag(
        "ignore", "Captions that nearly repeat an earlier one: say how many there are, or leave them out."
    )
    near_similarity: Annotated[float, Range(above=0, at_most=1)] = flag(
        0.8, "From where on captions are nearly the same: the share of groups of three words that both have."
    )
    cache_dir: str | None = flag(None, "Where downloads are kept.")


@dataclass
class EditArguments:
    """What is asked for; a run that goes on must keep these."""

    editor: Literal["chat", "transformers", "rules", "shapes"] = flag("chat", "Who edits; rules need no model.")
    model: str | None = flag(None, "Model at the endpoint, or of the transformers library.")
    principles: list[PrincipleName] = flag(list(PRINCIPLES), "Kinds of edits.")
    principle_sampling: Literal["uniform", "weighted"] = flag("uniform", "How one is drawn for a mismatched prompt.")
    principle_weights: list[NotNegativeNumber] = flag([], "For weighted: one weight for each of principles.")
    num_negatives: Few = flag(1, "Mismatched prompts per caption.")
    num_edits: Few = flag(1, "Budget of edits within one mismatched prompt.")
    max_attempts: Few = flag(3, "Unusable answers before a mismatched prompt is given up.")
    max_length_ratio: Annotated[float, Range(at_least=1)] = flag(
        1.5, "Longest edit as a multiple of the caption's words."
    )
    max_changed_share: Share = flag(0.5, "Largest share of the caption's words that an edit may change.")
    seed: Seed = flag(0, "Seed of every random choice.")
    validation_share: Annotated[float, Range(at_least=0, below=1)] = flag(
        0.0, "Share of the images, with all their rows, that go to the split validation."
    )
    test_share: Annotated[float, Range(at_least=0, below=1)] = flag(0.0, "The same for the split test.")
    then: Literal["chat", "transformers", "rules"] | None = flag(
        None, "Another editor for the captions that the first one finds no edit for; may be added later."
    )
    then_model: str | None = flag(None, "Model of that editor; model by default.")
    rows_per_shard: Many | None = flag(None, "Captions in one parquet file; 10000, or 1000 with images, by default.")


@dataclass
class ChatArguments:
    """How the model is reached."""

    base_url: list[str] = flag([HUGGING_FACE_ROUTER], "OpenAI-compatible endpoints; several share the work.")
    api_key_env: str | None = flag(None, "Environment variable with the key; your Hugging Face token for its router.")
    concurrency: Annotated[int, Range(at_least=1, at_most=10_000)] = flag(32, "Requests at once.")
    timeout: PositiveNumber = flag(120.0, "Seconds for one whole answer.")
    max_retries: Annotated[int, Range(at_least=0, at_most=100)] = flag(
        5, "Of a request that failed for a passing reason."
    )
    temperature: NotNegativeNumber | None = flag(None, "Of the model; its server's choice by default.")
    max_tokens: AtLeastOne | None = flag(None, "Longest answer; 512 for a local model, the server's choice otherwise.")
    extra_body: str | None = flag(None, "JSON with parameters that only some servers or chat templates know.")
    batch_size: Annotated[int, Range(at_least=1, at_most=10_000)] = flag(16, "Captions per batch of a local model.")
    device: str | None = flag(None, "Of a local model.")
    price_per_million_tokens: list[NotNegativeNumber] = flag(
        [], "Price of prompt and of completion tokens, to show the cost."
    )


@dataclass
class VerifyArguments:
    """A second opinion about every edit, from a model."""

    verify: list[Literal["text", "image"]] = flag(
        [], "Judges of every edit: text compares it with the caption, image looks at the image."
    )
    verify_with: Literal["chat", "transformers"] = flag("chat", "How that model is reached.")
    verify_model: str | None = flag(None, "The judge; a vision-language model if it looks at images.")
    verify_base_url: list[str] = flag([], "Its OpenAI-compatible endpoints; base_url by default.")
    verify_api_key_env: str | None = flag(None, "Environment variable with their key; api_key_env by default.")
    verify_extra_body: str | None = flag(None, "JSON with parameters that only some servers or chat templates know.")
    verify_price_per_million_tokens: list[NotNegativeNumber] = flag(
        [], "Price of the judge's prompt and completion tokens, to show the cost."
    )
    refused: Literal["ask_again", "keep"] = flag(
        "ask_again", "What becomes of refused edits: others are asked for, or they stay, marked."
    )


@dataclass
class OutputArguments:
    """What is left behind."""

    output_dir: str = flag("tpo-negatives", "Where everything is written.")
    dry_run: Few | None = flag(
        None, "Edit so many captions to see what all would take: requests, tokens, price, time. Nothing is kept."
    )
    retry_failed: bool = flag(True, "Ask again for rows that got no answer in an earlier run.")
    preview: Annotated[int, Range(at_least=0, at_most=1000)] = flag(
        5, "Rows shown in the terminal, and eight times as many in preview.html; 0 for none."
    )
    audit_sample: Many = flag(5000, "Rows that the slower figures of the audit look at.")
    embedding_model: str | None = flag(None, "A sentence-transformers model, to measure how far edits are.")
    max_blind_accuracy: Share = flag(0.65, "Warn if a text classifier tells mismatched prompts better than this.")
    strict: bool = flag(False, "Do not push a set that the audit warns of, and exit with code 1.")
    join_images: str | None = flag(
        None, "Edit nothing: give dataset_name, a set without images, the images of this one."
    )
    merge: list[str] = flag([], "Edit nothing: give dataset_name, a finished set, the rows of these other sets.")
    push_to_hub: bool = flag(False, "Push the data set and its card.")
    hub_dataset_id: str | None = flag(None, "Where to; the name of output_dir under your account by default.")
    hub_private: bool = flag(False, "Make a new repository private.")
    hub_revision: str | None = flag(None, "Branch to push to; made if it does not exist.")
    hub_token: str | None = flag(None, "Unsafe on a shared machine; `hf auth login` is better. Never stored.")
    license: str = flag("unknown", "Licence of the captions and images, for the card: a Hub licence id.")
    language: str | None = flag("en", "Language of the captions, for the card.")


def check_arguments(
    source: SourceArguments, edit: EditArguments, chat: ChatArguments, verify: VerifyArguments, output: OutputArguments
) -> None:
    """Checks what goes together and can be said without reading anything.

    Raises:
        UserError: naming the flags that do not go together.
    """
    places = ("dataset_name", "captions_file", "shapes_rows")
    if sum(getattr(source, name) is not None for name in places) != 1:
        raise UserError(f"give exactly one of {', '.join(f'--{name}' for name in places)}")
    check_principles(edit)
    check_models(edit, verify, output)
    check_prices("price_per_million_tokens", chat.price_per_million_tokens)
    check_prices("verify_price_per_million_tokens", verify.verify_price_per_million_tokens)
    check_output(source, edit, output)


def check_principles(edit: EditArguments) -> None:
    """Raises [`UserError`] for principles that are not different ones, or weights that do not belong to them."""
    if not edit.principles or len(set(edit.principles)) != len(edit.principles):
        raise UserError(f"--principles must be different ones, got {', '.join(edit.principles) or 'none'}")
    weighted = edit.principle_sampling == "weighted"
    if weighted and (len(edit.principle_weights) != len(edit.principles) or not sum(edit.principle_weights)):
        wanted = f"one number for each of the {len(edit.principles)} principles, not all 0"
        raise UserError(f"--principle_weights needs {wanted}, got {edit.principle_weights}")
    if edit.principle_weights and not weighted:
        raise UserError("--principle_weights needs --principle_sampling weighted")


def check_prices(name: str, prices: list[float]) -> None:
    """Raises [`UserError`] for a price that is not two numbers."""
    if len(prices) not in (0, 2):
        raise UserError(f"--{name} needs two numbers: of prompt and of completion tokens")


def check_output(source: SourceArguments, edit: EditArguments, output: OutputArguments) -> None:
    """Raises [`UserError`] for splits that leave nothing to train on, and for two tasks at once."""
    if edit.validation_share + edit.test_share >= 1:
        got = f"{edit.validation_share:g} and {edit.test_share:g}"
        raise UserError(f"--validation_share and --test_share must leave something to train on, got {got}")
    if output.join_images is not None and source.dataset_name is None:
        raise UserError("--join_images needs --dataset_name, the set that gets the images")
    if output.dry_run is not None and (output.merge or output.join_images is not None):
        raise UserError(
            "--dry_run says what edits would take, and --join_images and --merge edit nothing; leave one out"
        )
    if output.merge and (source.dataset_name is None or output.join_images is not None):
        raise UserError("--merge needs --dataset_name, the set that gets the rows, and no --join_images")


def check_models(edit: EditArguments, verify: VerifyArguments, output: OutputArguments) -> None:
    """Whether everybody who edits or judges has a model."""
    edits = output.join_images is None and not output.merge
    if edits and edit.editor in ("chat", "transformers") and edit.model is None:
        raise UserError(f"--editor {edit.editor} needs --model; without any model use --editor rules")
    if edit.then in ("chat", "transformers") and (edit.then_model or edit.model) is None:
        raise UserError(f"--then {edit.then} needs --then_model")
    if edit.then == edit.editor and edit.then_model in (None, edit.model):
        raise UserError(f"--then {edit.then} needs another editor than --editor, or another --then_model")
    if edit.then_model is not None and edit.then is None:
        raise UserError("--then_model needs --then chat or --then transformers")
    if verify.verify and verify.verify_model is None:
        raise UserError(f"--verify {' '.join(verify.verify)} needs --verify_model, the model that judges")
    if verify.verify_model is not None and not verify.verify:
        raise UserError("--verify_model needs --verify text, --verify image, or both")
