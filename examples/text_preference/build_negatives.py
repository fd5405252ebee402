#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo[negatives]"]
# ///
r"""Builds a data set of mismatched prompts from captions, for `train_text_to_image_tpo.py --dataset_name`.

    python build_negatives.py --dataset_name your-name/captioned-images --caption_column text --editor rules \
        --num_negatives 2 --output_dir my-tpo-negatives --push_to_hub

Run the same command again to go on after an interruption. README_negatives.md in examples/text_preference explains
every group of flags.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import datasets
from huggingface_hub import get_token
from tqdm.auto import tqdm

from diffusers_tpo import __version__
from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.data.rows import CAPTIONS, load_rows
from diffusers_tpo.errors import UserError, exit_on_user_error, require
from diffusers_tpo.files import write_unless_changed, write_whole
from diffusers_tpo.flags import AtLeastOne, NotNegativeNumber, PositiveNumber, Range, Share, flag
from diffusers_tpo.image_files import files_of
from diffusers_tpo.negatives.asking import TEMPLATE_VERSION
from diffusers_tpo.negatives.audit.report import (
    AuditLimits,
    audit,
    report_lines,
    report_tables,
    sentence_embedder,
    warnings_of,
)
from diffusers_tpo.negatives.build import Tally, begin, build, causes, only_run
from diffusers_tpo.negatives.chat import HUGGING_FACE_ROUTER, ChatEditor
from diffusers_tpo.negatives.checks import Limits
from diffusers_tpo.negatives.dataset import (
    Source,
    join_images,
    load_captions_file,
    shard_files,
    stream_built,
    stream_texts,
)
from diffusers_tpo.negatives.editors import Editor
from diffusers_tpo.negatives.preview import preview_html, preview_terminal
from diffusers_tpo.negatives.rules.editor import RulesEditor, count_words
from diffusers_tpo.negatives.work import Plan
from diffusers_tpo.principles import PRINCIPLES
from diffusers_tpo.privacy import public_config, public_name, short_name
from diffusers_tpo.publish.cards import DatasetPage
from diffusers_tpo.publish.hub import own_name, push_folder


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
class OutputArguments:
    """What is left behind."""

    output_dir: str = flag("tpo-negatives", "Where everything is written.")
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
    push_to_hub: bool = flag(False, "Push the data set and its card.")
    hub_dataset_id: str | None = flag(None, "Where to; the name of output_dir under your account by default.")
    hub_private: bool = flag(False, "Make a new repository private.")
    hub_revision: str | None = flag(None, "Branch to push to; made if it does not exist.")
    hub_token: str | None = flag(None, "Unsafe on a shared machine; `hf auth login` is better. Never stored.")
    license: str = flag("unknown", "Licence of the captions and images, for the card: a Hub licence id.")
    language: str | None = flag("en", "Language of the captions, for the card.")


def check_arguments(
    source: SourceArguments, edit: EditArguments, chat: ChatArguments, output: OutputArguments
) -> None:
    """What no flag can know of alone."""
    places = ("dataset_name", "captions_file", "shapes_rows")
    if sum(getattr(source, name) is not None for name in places) != 1:
        raise UserError(f"give exactly one of {', '.join(f'--{name}' for name in places)}")
    if not edit.principles or len(set(edit.principles)) != len(edit.principles):
        raise UserError(f"--principles must be different ones, got {', '.join(edit.principles) or 'none'}")
    weighted = edit.principle_sampling == "weighted"
    if weighted and (len(edit.principle_weights) != len(edit.principles) or not sum(edit.principle_weights)):
        wanted = f"one number for each of the {len(edit.principles)} principles, not all 0"
        raise UserError(f"--principle_weights needs {wanted}, got {edit.principle_weights}")
    if edit.principle_weights and not weighted:
        raise UserError("--principle_weights needs --principle_sampling weighted")
    if edit.editor in ("chat", "transformers") and edit.model is None and output.join_images is None:
        raise UserError(f"--editor {edit.editor} needs --model; without any model use --editor rules")
    if len(chat.price_per_million_tokens) not in (0, 2):
        raise UserError("--price_per_million_tokens needs two numbers: of prompt and of completion tokens")
    if output.join_images is not None and source.dataset_name is None:
        raise UserError("--join_images needs --dataset_name, the set that gets the images")


def open_source(source: SourceArguments, token: str | None, with_images: bool) -> Source:
    """The captions, `with_images` beside them if there are any."""
    if source.shapes_rows is not None:
        from diffusers_tpo.shapes.world import make_captions

        return Source(make_captions(source.shapes_rows, seed=0), "prompt", "image")
    if source.captions_file is not None:
        rows = load_captions_file(source.captions_file)
    else:
        rows = load_rows(
            source.dataset_name,
            config=source.dataset_config_name,
            split=source.dataset_split,
            revision=source.dataset_revision,
            cache_dir=source.cache_dir,
            token=token,
        )
    if source.max_samples is not None:
        rows = rows.select(range(min(source.max_samples, len(rows))))
    columns = rows.column_names
    caption = source.caption_column or next((name for name in CAPTIONS if name in columns), None)
    if caption is None:
        raise UserError(f"--caption_column must name the captions; the data set has {', '.join(columns)}")
    if not with_images:  # image_column and key_column are those of the images that are joined
        return Source(rows, caption)
    image = source.image_column or ("image" if isinstance(rows.features.get("image"), datasets.Image) else None)
    files = files_of(source.captions_file or source.dataset_name, token)
    return Source(rows, caption, image, source.key_column, files)


def read_key(chat: ChatArguments) -> str | None:
    """The key for the endpoint. A key is never sent to an endpoint that it was not meant for."""
    if chat.api_key_env:
        if chat.api_key_env not in os.environ:
            raise UserError(
                f"--api_key_env {chat.api_key_env!r} is no environment variable; set it to the endpoint's key"
            )
        return os.environ[chat.api_key_env]
    if HUGGING_FACE_ROUTER not in chat.base_url:
        return None
    if len(chat.base_url) > 1 or get_token() is None:
        raise UserError(
            "the Hugging Face router needs your token: run `hf auth login`, and give it as the only --base_url"
        )
    return get_token()


def read_extra_body(chat: ChatArguments) -> dict | None:
    try:
        extra = json.loads(chat.extra_body or "null")
    except (ValueError, RecursionError) as error:
        raise UserError(f"--extra_body must be JSON of an object, got {chat.extra_body!r}") from error
    if not isinstance(extra, dict | None):
        raise UserError(f"--extra_body must be JSON of an object, got {chat.extra_body!r}")
    return extra


def make_editor(edit: EditArguments, chat: ChatArguments, source: Source, token: str | None) -> Editor:
    extra = read_extra_body(chat)
    if edit.editor == "rules":
        return RulesEditor(count_words(source.sample(10_000)))
    if edit.editor == "shapes":
        from diffusers_tpo.negatives.shapes import ShapesEditor

        return ShapesEditor()
    if edit.editor == "transformers":
        from diffusers_tpo.negatives.local import TransformersEditor

        return TransformersEditor(
            edit.model,
            batch_size=chat.batch_size,
            max_new_tokens=chat.max_tokens or 512,
            temperature=0.7 if chat.temperature is None else chat.temperature,
            device=chat.device,
            template_options=extra,
            token=token,
        )
    given = {"temperature": chat.temperature, "max_tokens": chat.max_tokens}
    return ChatEditor(
        edit.model,
        tuple(chat.base_url),
        read_key(chat),
        concurrency=chat.concurrency,
        timeout=chat.timeout,
        max_retries=chat.max_retries,
        options={name: value for name, value in given.items() if value is not None},
        extra_body=extra,
    )


def make_plan(edit: EditArguments) -> Plan:
    return Plan(
        principles=tuple(edit.principles),
        weights=tuple(edit.principle_weights) or None,
        num_negatives=edit.num_negatives,
        num_edits=edit.num_edits,
        max_attempts=edit.max_attempts,
        seed=edit.seed,
        limits=Limits(length_ratio=edit.max_length_ratio, changed_share=edit.max_changed_share),
    )


def identity_of(edit: EditArguments, chat: ChatArguments, source: Source) -> dict:
    """Whatever decides what the result is. A folder goes on only with the same; it stays in the folder and is never pushed."""
    model = edit.model
    if model is not None and edit.editor == "transformers" and Path(model).is_dir():
        from diffusers_tpo.models.fingerprints import fingerprint

        model = fingerprint(model)
    answers = {"temperature": chat.temperature, "max_tokens": chat.max_tokens, "extra_body": chat.extra_body}
    versions = {"template_version": TEMPLATE_VERSION, "diffusers_tpo": __version__}
    return {**asdict(edit), **answers, **versions, **source.fingerprints(), "model": model}


class Progress:
    """A bar of captions with failures, tokens and cost beside its rate and the time left."""

    def __init__(self, total: int, prices: list[float]):
        self.bar = tqdm(total=total, unit="captions", smoothing=0.05)
        self.prices = prices
        self.started = False

    def cost(self, tally: Tally) -> float:
        if not self.prices:
            return 0.0
        for_prompts, for_completions = self.prices
        return (tally.prompt_tokens * for_prompts + tally.completion_tokens * for_completions) / 1e6

    def show(self, tally: Tally) -> None:
        if not self.started:  # what earlier runs did is no part of the rate
            self.bar.initial = self.bar.n = self.bar.last_print_n = tally.captions
            self.started = True
        shown = {"failed": tally.failed}
        if tally.prompt_tokens:
            shown["tokens"] = f"{(tally.prompt_tokens + tally.completion_tokens) / 1000:.1f}k"
        if self.prices:
            shown["cost"] = f"${self.cost(tally):.4f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(tally.captions - self.bar.n)


def edit_captions(source: Source, edit: EditArguments, chat: ChatArguments, output: OutputArguments) -> dict:
    """Gets the mismatched prompts; returns how many there were, and what they cost."""
    folder = Path(output.output_dir)
    editor = make_editor(edit, chat, source, output.hub_token)
    editor.name = short_name(editor.name)
    progress = Progress(len(source.rows), chat.price_per_million_tokens)
    try:
        tally = build(
            source,
            editor,
            make_plan(edit),
            folder,
            identity_of(edit, chat, source),
            rows_per_shard=edit.rows_per_shard or (1000 if source.image_column else 10_000),
            retry_failed=output.retry_failed,
            progress=progress.show,
        )
    except KeyboardInterrupt:
        print(f"\nstopped; {folder} keeps every answer that came: run the same command to go on", file=sys.stderr)
        sys.exit(130)
    finally:
        progress.bar.close()
    if not tally.kept:
        cause, number = causes(folder).most_common(1)[0]
        raise UserError(
            f"no caption could be edited: {number} of {tally.captions} because {cause}; all are in "
            f"{str(folder / 'failed.jsonl')!r}: mend the cause and run the same command again"
        )
    if unanswered := causes(folder, unanswered=True):
        cause, number = unanswered.most_common(1)[0]
        print(
            f"{unanswered.total()} captions got no answer, {number} because {cause}: run the same command to ask again"
        )
    return vars(tally) | {"cost": progress.cost(tally)}


def join(negatives: Source, source: SourceArguments, edit: EditArguments, output: OutputArguments) -> None:
    """Gives a set without images the images of another one, by key."""
    begin(Path(output.output_dir), {"joined": output.join_images}, is_own=lambda name: False)
    images = load_rows(
        output.join_images, split=source.dataset_split, token=output.hub_token, argument="--join_images"
    )
    written, without = join_images(
        negatives.rows,
        images,
        source.image_column or "image",
        source.key_column or "key",
        Path(output.output_dir),
        edit.rows_per_shard or 1000,
        files_of(output.join_images, output.hub_token),
    )
    print(f"{written} rows have their images; {without} were left out, whose keys no image has")


def origin_of(source: SourceArguments) -> str:
    """What the card says of where the captions come from."""
    if source.shapes_rows is not None:
        return "the embedded shapes world"
    if source.captions_file is not None:
        return "a local file"
    name = public_name(source.dataset_name, "data set")
    if name != source.dataset_name:
        return name
    revision = f", revision {source.dataset_revision}" if source.dataset_revision else ""
    return f"[{name}](https://huggingface.co/datasets/{name}), split {source.dataset_split}{revision}"


def settings_of(source: SourceArguments, edit: EditArguments, output: OutputArguments) -> dict[str, object]:
    """What the card says of how the set was made."""
    if output.join_images is not None:
        return {"joined with": public_name(output.join_images, "data set")}
    settings = asdict(edit) | {"template_version": TEMPLATE_VERSION, "principles": ", ".join(edit.principles)}
    if edit.model is not None:
        settings["model"] = short_name(edit.model)
    return public_config(settings)


def audit_set(folder: Path, generation: dict, seed: int, output: OutputArguments, embed: Callable | None) -> dict:
    """The figures of what was built, with their warnings; they stay in `audit.json`."""
    figures = audit(stream_texts(folder), output.audit_sample, seed, embed)
    figures["generation"] = generation
    figures["warnings"] = warnings_of(figures, AuditLimits(blind_accuracy=output.max_blind_accuracy))
    write_whole(folder / "audit.json", json.dumps(figures, indent=2, ensure_ascii=False))
    return figures


def write_card(
    folder: Path, repo: str, figures: dict, source: SourceArguments, edit: EditArguments, output: OutputArguments
) -> Path:
    """Writes the page of the data set; one that somebody has changed stays as it is."""
    page = DatasetPage(
        repo=repo,
        features=stream_built(folder).features,
        rows=figures["captions"],
        size=sum(path.stat().st_size for path in shard_files(folder)),
        license=output.license,
        language=output.language,
        example=next(stream_texts(folder)),
        source=origin_of(source),
        key=source.key_column,
        template_version=TEMPLATE_VERSION,
        settings=settings_of(source, edit, output),
        principles=[PRINCIPLES[name] for name in figures["principles"] if name in PRINCIPLES],
        audit=report_tables(figures),
        warnings=figures["warnings"],
        with_failed=figures["generation"].get("failed", 0) > 0,
    )
    card, copy = folder / "README.md", folder / "work" / "README.md"
    if write_unless_changed(card, page.text(), copy):
        return card
    print(f"{card} was changed by somebody else and stays as it is; {copy} is the page of this run")
    return copy


def show_preview(folder: Path, number: int) -> None:
    built = stream_built(folder)
    if "image" in built.features:
        built = built.cast_column("image", datasets.Image(decode=False))
    rows = list(islice(built, 8 * number))
    preview_terminal(rows[:number])
    preview_html(rows, folder / "preview.html", folder.name)
    print(f"\n{folder / 'preview.html'} shows {len(rows)} rows with what changed")


def main(source: SourceArguments, edit: EditArguments, chat: ChatArguments, output: OutputArguments) -> None:
    check_arguments(source, edit, chat, output)
    datasets.disable_progress_bars()

    # What only the end needs: better missed here than there.
    for package in ("inflect", "nltk", "rich", "sklearn"):
        require(package, extra="negatives")
    embed = sentence_embedder(output.embedding_model) if output.embedding_model else None

    # Where it goes: no other run works there, and a wrong token is known here, not after the edits.
    folder = Path(output.output_dir)
    with only_run(folder):
        repo = output.hub_dataset_id or folder.resolve().name
        if output.push_to_hub:
            repo = own_name(repo, output.hub_token)

        # What it is made from, and the mismatched prompts; or a finished set, which only gets its images.
        joins = output.join_images is not None
        captions = open_source(source, output.hub_token, with_images=not joins)
        if joins:
            join(captions, source, edit, output)
            generation = {}
        else:
            generation = edit_captions(captions, edit, chat, output)

        # What the set is worth, in figures, on its card, and to look at.
        figures = audit_set(folder, generation, edit.seed, output, embed)
        card = write_card(folder, repo if "/" in repo else f"your-name/{repo}", figures, source, edit, output)
        if output.preview:
            show_preview(folder, output.preview)
        print("\n" + "\n".join(report_lines(figures)))
        print(f"all figures are in {card}; train on the set with --dataset_name {shlex.quote(str(folder))}")

        # Where others find it.
        if figures["warnings"] and output.strict:
            sys.exit(f"not pushed: --strict, and the audit has {len(figures['warnings'])} warnings")
        if output.push_to_hub:
            private, revision = output.hub_private, output.hub_revision
            address = push_folder(folder, repo, output.hub_token, "dataset", private=private, revision=revision)
            print(f"pushed to {address}")


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(SourceArguments, EditArguments, ChatArguments, OutputArguments, description=__doc__))
