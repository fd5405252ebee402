#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo[negatives]"]
# ///
"""Builds a data set of mismatched prompts from captions, for `train_text_to_image_tpo.py --dataset_name`.

    python build_negatives.py --dataset_name your-name/captioned-images --caption_column text --editor rules \
        --num_negatives 2 --output_dir my-tpo-negatives --push_to_hub

Run the same command again to go on after an interruption. The README beside this file explains every group of flags.
"""

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import datasets
from huggingface_hub import get_token
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from diffusers_tpo.data.rows import load_rows
from diffusers_tpo.errors import UserError, exit_on_user_error, require
from diffusers_tpo.files import write_whole
from diffusers_tpo.negatives.asking import TEMPLATE_VERSION
from diffusers_tpo.negatives.audit.report import AuditLimits, audit, report_tables, sentence_embedder, warnings_of
from diffusers_tpo.negatives.build import Tally, build
from diffusers_tpo.negatives.chat import HUGGING_FACE_ROUTER, ChatEditor
from diffusers_tpo.negatives.checks import Limits
from diffusers_tpo.negatives.dataset import (
    Source,
    iterate_rows,
    join_images,
    load_captions_file,
    shard_files,
    stream_built,
)
from diffusers_tpo.negatives.preview import preview_html, preview_terminal
from diffusers_tpo.negatives.rules.editor import RulesEditor, count_words
from diffusers_tpo.negatives.work import Plan
from diffusers_tpo.principles import PRINCIPLES
from diffusers_tpo.privacy import public_config, public_name, short_name
from diffusers_tpo.publish.cards import dataset_card_data, write_dataset_card
from diffusers_tpo.publish.hub import own_name, push_folder
from diffusers_tpo.show import inside_code


EDITORS = {
    "rules": (
        "Words were exchanged by rules and a lexicon, without a language model.",
        "Rules know a few hundred kinds of words: edits repeat, and captions that use none of them are missing.",
    ),
    "a language model": (
        "The edits were written by the language model `{model}` (prompt template {template}).",
        "A language model can misjudge which image a caption allows; checks of the words alone do not notice that.",
    ),
    "shapes": (
        "The edits are captions of edited scenes of the embedded shapes world, so they are exact.",
        "It is a world of coloured shapes on four backgrounds, for tests and first steps only.",
    ),
}


def flag(default, help: str):
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class SourceArguments:
    """Where the captions come from."""

    dataset_name: str | None = flag(None, "Hub id, or a local folder: imagefolder, parquet or save_to_disk.")
    captions_file: str | None = flag(None, "A file of captions: .txt with one a line, .csv, .jsonl or .parquet.")
    shapes_rows: int | None = flag(None, "So many captions and images of the embedded shapes world.")
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
    max_samples: int | None = flag(None, "Use only the first rows.")
    cache_dir: str | None = flag(None, "Where downloads are kept.")


@dataclass
class EditArguments:
    """What is asked for; a run that goes on must keep these."""

    editor: Literal["chat", "transformers", "rules", "shapes"] = flag("chat", "Who edits; rules need no model.")
    model: str | None = flag(None, "Model at the endpoint, or of the transformers library.")
    principles: list[str] = flag(list(PRINCIPLES), "Kinds of edits.")
    principle_sampling: Literal["uniform", "weighted"] = flag("uniform", "How one is drawn for a mismatched prompt.")
    principle_weights: list[float] = flag([], "For weighted: one weight for each of principles.")
    num_negatives: int = flag(1, "Mismatched prompts per caption.")
    num_edits: int = flag(1, "Budget of edits within one mismatched prompt.")
    max_attempts: int = flag(3, "Unusable answers before a mismatched prompt is given up.")
    max_length_ratio: float = flag(1.5, "Longest edit as a multiple of the caption's words.")
    max_changed_share: float = flag(0.5, "Largest share of the caption's words that an edit may change.")
    seed: int = flag(0, "Seed of every random choice.")
    rows_per_shard: int | None = flag(None, "Captions in one parquet file; 10000, or 1000 with images, by default.")


@dataclass
class ChatArguments:
    """How the model is reached."""

    base_url: list[str] = flag([HUGGING_FACE_ROUTER], "OpenAI-compatible endpoints; several share the work.")
    api_key_env: str | None = flag(None, "Environment variable with the key; your Hugging Face token for its router.")
    concurrency: int = flag(32, "Requests at once.")
    timeout: float = flag(120.0, "Seconds for one request.")
    max_retries: int = flag(5, "Of a request that failed for a passing reason.")
    temperature: float | None = flag(None, "Of the model; its server's choice by default.")
    max_tokens: int | None = flag(None, "Longest answer; 512 for a local model, the server's choice otherwise.")
    extra_body: str | None = flag(None, "JSON with parameters that only some servers or chat templates know.")
    batch_size: int = flag(16, "Captions per batch of a local model.")
    device: str | None = flag(None, "Of a local model.")
    price_per_million_tokens: list[float] = flag([], "Price of prompt and of completion tokens, to show the cost.")


@dataclass
class OutputArguments:
    """What is left behind."""

    output_dir: str = flag("tpo-negatives", "Where everything is written.")
    retry_failed: bool = flag(False, "Ask again for rows that got no answer in an earlier run.")
    preview: int = flag(5, "Rows shown in the terminal, and eight times as many in preview.html; 0 for none.")
    audit_sample: int = flag(5000, "Rows that the slower figures of the audit look at.")
    embedding_model: str | None = flag(None, "A sentence-transformers model, to measure how far edits are.")
    max_blind_accuracy: float = flag(0.65, "Warn if a text classifier tells mismatched prompts better than this.")
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
    names = ("dataset_name", "captions_file", "shapes_rows")
    if sum(getattr(source, name) is not None for name in names) != 1:
        raise UserError(f"give exactly one of {', '.join(names)}")
    if wrong := [name for name in edit.principles if name not in PRINCIPLES]:
        raise UserError(f"principles must be among {', '.join(PRINCIPLES)}, got {', '.join(wrong)}")
    if len(set(edit.principles)) != len(edit.principles):
        raise UserError(f"principles must differ, got {', '.join(edit.principles)}")
    weights, weighted = edit.principle_weights, edit.principle_sampling == "weighted"
    usable = all(0 <= weight < float("inf") for weight in weights) and sum(weights) > 0
    if weighted and not (usable and len(weights) == len(edit.principles)):
        wanted = f"one number for each of the {len(edit.principles)} principles, none negative and not all 0"
        raise UserError(f"principle_weights needs {wanted}, got {weights}")
    if weights and not weighted:
        raise UserError("principle_weights needs --principle_sampling weighted")
    counts = {name: getattr(edit, name) for name in ("num_negatives", "num_edits", "max_attempts")}
    counts |= {"concurrency": chat.concurrency, "batch_size": chat.batch_size}
    counts |= {"rows_per_shard": edit.rows_per_shard or 1, "preview": output.preview or 1}
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if edit.editor in ("chat", "transformers") and edit.model is None and output.join_images is None:
        raise UserError(f"editor {edit.editor} needs --model; without any model use --editor rules")
    if chat.price_per_million_tokens and len(chat.price_per_million_tokens) != 2:
        raise UserError("price_per_million_tokens needs two numbers: of prompt and of completion tokens")


def open_source(args: SourceArguments, token: str | None, joins: bool) -> tuple[Source, dict]:
    """The captions, and what the card says of their origin."""
    if args.shapes_rows is not None:
        from diffusers_tpo.shapes.world import make_captions

        origin = {"source": "the embedded shapes world", "key_meaning": "the row's number"}
        return Source(make_captions(args.shapes_rows, seed=0), "prompt", "image"), origin
    if args.captions_file is not None:
        rows, name = load_captions_file(args.captions_file), "a local file"
    else:
        options = {"config": args.dataset_config_name, "split": args.dataset_split, "revision": args.dataset_revision}
        rows = load_rows(args.dataset_name, **options, cache_dir=args.cache_dir, token=token)
        name = public_name(args.dataset_name, "data set")
        if name == args.dataset_name:
            revision = f", revision {args.dataset_revision}" if args.dataset_revision else ""
            name = f"[{name}](https://huggingface.co/datasets/{name}), split {args.dataset_split}{revision}"
    if args.max_samples is not None:
        rows = rows.select(range(min(args.max_samples, len(rows))))
    caption = args.caption_column or next((c for c in ("prompt", "text", "caption") if c in rows.column_names), None)
    if caption is None:
        raise UserError(f"caption_column must name the captions; the data set has {', '.join(rows.column_names)}")
    key = args.key_column
    origin = {"source": name, "key_meaning": f"the source's `{key}`" if key else "the row's number in the source"}
    if joins:  # image_column and key_column are those of the images
        return Source(rows, caption), origin
    has_images = isinstance(rows.features.get("image"), datasets.Image)
    return Source(rows, caption, args.image_column or ("image" if has_images else None), key), origin


def read_key(chat: ChatArguments) -> str | None:
    """The key for the endpoint. A key is never sent to an endpoint that it was not meant for."""
    if chat.api_key_env:
        if chat.api_key_env not in os.environ:
            raise UserError(
                f"api_key_env {chat.api_key_env!r} is no environment variable; set it to the endpoint's key"
            )
        return os.environ[chat.api_key_env]
    if HUGGING_FACE_ROUTER not in chat.base_url:
        return None
    if len(chat.base_url) > 1 or get_token() is None:
        raise UserError(
            "the Hugging Face router needs your token: run `hf auth login`, and give it as the only base_url"
        )
    return get_token()


def make_editor(edit: EditArguments, chat: ChatArguments, source: Source, token: str | None):
    try:
        extra = json.loads(chat.extra_body or "null")
        if not isinstance(extra, dict | None):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise UserError(f"extra_body must be JSON of an object, got {chat.extra_body!r}") from error
    if edit.editor == "rules":
        return RulesEditor(count_words(source.sample(10_000)))
    if edit.editor == "shapes":
        from diffusers_tpo.negatives.shapes import ShapesEditor

        return ShapesEditor()
    if edit.editor == "transformers":
        from diffusers_tpo.negatives.local import TransformersEditor

        options = {} if chat.temperature is None else {"temperature": chat.temperature}
        options |= {"template_options": extra, "device": chat.device, "token": token}
        return TransformersEditor(edit.model, chat.batch_size, chat.max_tokens or 512, **options)
    options = {"temperature": chat.temperature, "max_tokens": chat.max_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    limits = (chat.concurrency, chat.timeout, chat.max_retries)
    return ChatEditor(edit.model, tuple(chat.base_url), read_key(chat), *limits, options, extra)


def make_plan(edit: EditArguments) -> Plan:
    weights = tuple(edit.principle_weights) or (1.0,) * len(edit.principles)
    chosen = [(name, weight) for name, weight in zip(edit.principles, weights, strict=True) if weight]
    limits = Limits(length_ratio=edit.max_length_ratio, changed_share=edit.max_changed_share)
    counts = (edit.num_negatives, edit.num_edits, edit.max_attempts)
    return Plan(*map(tuple, zip(*chosen, strict=True)), *counts, seed=edit.seed, limits=limits)


class Progress:
    """A bar of captions with failures, tokens and cost beside its rate and the time left."""

    def __init__(self, total: int, prices: list[float]):
        self.bar, self.prices, self.started = tqdm(total=total, unit="captions", smoothing=0.05), prices, False

    def cost(self, tally: Tally) -> float:
        tokens = (tally.prompt_tokens, tally.completion_tokens)
        return sum(count * price for count, price in zip(tokens, self.prices, strict=False)) / 1e6

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


def write_report(folder: Path, generation: dict, seed: int, output: OutputArguments) -> dict:
    """Audits what was built, writes `audit.json`, prints the tables and warnings, and returns the figures."""
    embed = sentence_embedder(output.embedding_model) if output.embedding_model else None
    figures = audit(iterate_rows(folder), output.audit_sample, seed, embed)
    figures["generation"] = generation
    figures["warnings"] = warnings_of(figures, AuditLimits(blind_accuracy=output.max_blind_accuracy))
    write_whole(folder / "audit.json", json.dumps(figures, indent=2, ensure_ascii=False))
    print(f"\n{report_tables(figures)}\n")
    for warning in figures["warnings"]:
        print(f"warning: {warning}")
    return figures


def write_card(folder: Path, repo: str, origin: dict, settings: dict, figures: dict, output: OutputArguments) -> None:
    features = stream_built(folder).features
    example = next(iterate_rows(folder))
    size = sum(path.stat().st_size for path in shard_files(folder))
    editor = inside_code(example["editor"])
    made, limits = EDITORS.get(editor, EDITORS["a language model"])
    write_dataset_card(
        folder / "README.md",
        repo,
        dataset_card_data(features, figures["captions"], size, output.license, output.language),
        figures["captions"],
        example,
        settings,
        [PRINCIPLES[name] for name in figures["principles"] if name in PRINCIPLES],
        report_tables(figures),
        figures["warnings"],
        editor=editor,
        editor_text=made.format(model=editor, template=TEMPLATE_VERSION),
        editor_limits=limits,
        **origin,
        with_image="image" in features,
        with_failed="failed" in figures["generation"] and figures["generation"]["failed"] > 0,
    )


def show_preview(folder: Path, number: int) -> None:
    rows = list(islice(stream_built(folder), 8 * number))
    preview_terminal(rows[:number])
    preview_html(rows, folder / "preview.html", folder.name)
    print(f"{folder / 'preview.html'} shows {len(rows)} rows with what changed")


def edit_captions(
    source: Source, edit: EditArguments, chat: ChatArguments, output: OutputArguments
) -> tuple[dict, dict]:
    """Gets the mismatched prompts; returns what happened and the settings for the card."""
    folder, plan = Path(output.output_dir), make_plan(edit)
    editor = make_editor(edit, chat, source, output.hub_token)
    editor.name = short_name(editor.name)
    config = asdict(edit) | {"template_version": TEMPLATE_VERSION, "captions": source.fingerprint()}
    rows_per_shard = edit.rows_per_shard or (1000 if source.image_column else 10_000)
    progress = Progress(len(source.rows), chat.price_per_million_tokens)
    try:
        tally = build(source, editor, plan, folder, config, rows_per_shard, output.retry_failed, progress.show)
    except KeyboardInterrupt:
        print(f"\nstopped; {folder} keeps every answer that came: run the same command to go on", file=sys.stderr)
        sys.exit(130)
    finally:
        progress.bar.close()
    if tally.failed:
        print(f"{tally.failed} of {tally.captions} captions were set aside; {folder / 'failed.jsonl'} says why")
    if not tally.kept:
        raise UserError("no caption could be edited; failed.jsonl in output_dir says why")
    settings = asdict(edit) | {"template_version": TEMPLATE_VERSION, "principles": ", ".join(edit.principles)}
    if edit.model is not None:
        settings["model"] = editor.name
    return vars(tally) | {"cost": progress.cost(tally)}, public_config(settings)


def join(
    negatives: Source, source: SourceArguments, edit: EditArguments, output: OutputArguments
) -> tuple[dict, dict]:
    """Gives a set without images the images of another one, by key."""
    images = load_rows(output.join_images, split=source.dataset_split, token=output.hub_token)
    columns = (source.image_column or "image", source.key_column or "key")
    written, without = join_images(
        negatives.rows, images, *columns, Path(output.output_dir), edit.rows_per_shard or 1000
    )
    print(f"{written} rows have their images; {without} were left out, whose keys no image has")
    return {}, {"joined with": public_name(output.join_images, "data set")}


def main(source_args: SourceArguments, edit: EditArguments, chat: ChatArguments, output: OutputArguments) -> None:
    check_arguments(source_args, edit, chat, output)
    require("inflect", extra="negatives")
    datasets.disable_progress_bars()
    folder = Path(output.output_dir)
    repo = output.hub_dataset_id or folder.resolve().name
    if output.push_to_hub:
        repo = own_name(repo, output.hub_token)
    source, origin = open_source(source_args, output.hub_token, joins=output.join_images is not None)

    if output.join_images is not None:
        generation, settings = join(source, source_args, edit, output)
    else:
        generation, settings = edit_captions(source, edit, chat, output)

    figures = write_report(folder, generation, edit.seed, output)
    write_card(folder, repo if "/" in repo else f"your-name/{repo}", origin, settings, figures, output)
    if output.preview:
        show_preview(folder, output.preview)
    print(f"{figures['captions']} rows in {folder}; train on them with --dataset_name {shlex.quote(str(folder))}")
    if figures["warnings"] and output.strict:
        sys.exit(f"not pushed: strict, and the audit has {len(figures['warnings'])} warnings")
    if output.push_to_hub:
        options = {"private": output.hub_private, "revision": output.hub_revision}
        print(f"pushed to {push_folder(folder, repo, output.hub_token, 'dataset', **options)}")


if __name__ == "__main__":
    with exit_on_user_error():
        groups = (SourceArguments, EditArguments, ChatArguments, OutputArguments)
        main(*HfArgumentParser(groups, description=__doc__).parse_args_into_dataclasses())
