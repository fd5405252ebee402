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
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import datasets
from huggingface_hub import get_token
from tqdm.auto import tqdm

from diffusers_tpo import __version__
from diffusers_tpo.chat import HUGGING_FACE_ROUTER, ChatClient, Flags
from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.data.rows import CAPTIONS, load_rows
from diffusers_tpo.errors import UserError, exit_on_user_error, require
from diffusers_tpo.files import write_unless_changed, write_whole
from diffusers_tpo.image_files import files_of
from diffusers_tpo.negatives.arguments import (
    ChatArguments,
    EditArguments,
    OutputArguments,
    SourceArguments,
    VerifyArguments,
    check_arguments,
)
from diffusers_tpo.negatives.asking import TEMPLATE_VERSION
from diffusers_tpo.negatives.audit.report import (
    AuditLimits,
    audit,
    report_lines,
    report_tables,
    sentence_embedder,
    warnings_of,
)
from diffusers_tpo.negatives.build import Stages, begin, build, causes, languages_of_failed, only_run
from diffusers_tpo.negatives.chat import ChatEditor
from diffusers_tpo.negatives.checks import Limits
from diffusers_tpo.negatives.dataset import (
    Source,
    join_images,
    load_captions_file,
    sizes_of,
    stream_built,
    stream_texts,
)
from diffusers_tpo.negatives.editors import Editor
from diffusers_tpo.negatives.estimate import estimate
from diffusers_tpo.negatives.merge import merge_sets
from diffusers_tpo.negatives.near import near_duplicates
from diffusers_tpo.negatives.preview import preview_html, preview_terminal
from diffusers_tpo.negatives.rules.editor import RulesEditor, count_words
from diffusers_tpo.negatives.splits import Shares
from diffusers_tpo.negatives.tally import Prices, Tally
from diffusers_tpo.negatives.verdicts import VERIFY_VERSION
from diffusers_tpo.negatives.verifier import Model, Verifier
from diffusers_tpo.negatives.work import Plan
from diffusers_tpo.principles import PRINCIPLES
from diffusers_tpo.privacy import public_config, public_name, short_name
from diffusers_tpo.publish.cards import DatasetPage
from diffusers_tpo.publish.hub import own_name, push_folder


SHOWN = ("editor", "principles", "num_negatives", "seed")  # settings that a card names though they are the defaults


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


def read_key(base_url: list[str], api_key_env: str | None, flags: Flags) -> str | None:
    """The key for endpoints. A key is never sent to an endpoint that it was not meant for."""
    if api_key_env:
        if api_key_env not in os.environ:
            raise UserError(f"{flags.key} {api_key_env!r} is no environment variable; set it to the endpoint's key")
        return os.environ[api_key_env]
    if HUGGING_FACE_ROUTER not in base_url:
        return None
    if len(base_url) > 1 or get_token() is None:
        raise UserError(
            f"the Hugging Face router needs your token: run `hf auth login`, and give it as the only {flags.url}"
        )
    return get_token()


def read_object(name: str, text: str | None) -> dict | None:
    try:
        value = json.loads(text or "null")
    except (ValueError, RecursionError) as error:
        raise UserError(f"--{name} must be JSON of an object, got {text!r}") from error
    if not isinstance(value, dict | None):
        raise UserError(f"--{name} must be JSON of an object, got {text!r}")
    return value


def make_editor(kind: str, model: str | None, chat: ChatArguments, source: Source, token: str | None) -> Editor:
    """An editor, whose name leaves this machine."""
    extra = read_object("extra_body", chat.extra_body)
    if kind == "rules":
        return RulesEditor(count_words(source.sample(10_000)))
    if kind == "shapes":
        from diffusers_tpo.negatives.shapes import ShapesEditor

        return ShapesEditor()
    if kind == "transformers":
        from diffusers_tpo.negatives.local import TransformersEditor

        editor: Editor = TransformersEditor(
            model,
            temperature=0.7 if chat.temperature is None else chat.temperature,
            batch_size=chat.batch_size,
            max_new_tokens=chat.max_tokens or 512,
            device=chat.device,
            template_options=extra,
            token=token,
        )
    else:
        given = {"temperature": chat.temperature, "max_tokens": chat.max_tokens}
        editor = ChatEditor(
            model,
            tuple(chat.base_url),
            read_key(chat.base_url, chat.api_key_env, Flags()),
            concurrency=chat.concurrency,
            timeout=chat.timeout,
            max_retries=chat.max_retries,
            options={name: value for name, value in given.items() if value is not None},
            extra_body=extra,
        )
    editor.name = short_name(editor.name)
    return editor


def make_verifier(verify: VerifyArguments, chat: ChatArguments, source: Source, token: str | None) -> Verifier | None:
    """The judges, if there are to be any."""
    if not verify.verify:
        return None
    if "image" in verify.verify and source.image_column is None:
        raise UserError("--verify image needs a data set with images; --verify text compares captions only")
    extra = read_object("verify_extra_body", verify.verify_extra_body)
    if verify.verify_with == "transformers":
        from diffusers_tpo.negatives.local import LocalModel

        model: Model = LocalModel(
            verify.verify_model,
            sees_images="image" in verify.verify,
            batch_size=chat.batch_size,
            device=chat.device,
            template_options=extra,
            token=token,
            flag="--verify_model",
        )
    else:
        flags = Flags("--verify_model", "--verify_base_url", "--verify_api_key_env")
        urls = verify.verify_base_url or chat.base_url
        key_env = verify.verify_api_key_env or (None if verify.verify_base_url else chat.api_key_env)
        model = ChatClient(
            verify.verify_model,
            tuple(urls),
            read_key(urls, key_env, flags),
            concurrency=chat.concurrency,
            timeout=chat.timeout,
            max_retries=chat.max_retries,
            options={"temperature": 0.0},
            extra_body=extra,
            flags=flags,
        )
    name = short_name(verify.verify_model)
    return Verifier(model, name, tuple(verify.verify), verify.refused == "keep", source.picture)


def without_near(source: Source, arguments: SourceArguments) -> Source:
    """Says how many captions nearly repeat an earlier one, and leaves them out if that is wanted."""
    if arguments.near_duplicates == "ignore":
        return source
    near = near_duplicates(source.captions(0, len(source.rows)), arguments.near_similarity)
    removes = arguments.near_duplicates == "remove"
    print(
        f"{len(near)} of {len(source.rows)} captions nearly repeat an earlier one (similarity of at least "
        f"{arguments.near_similarity:g}){'; they are left out' if removes and near else ''}"
    )
    return source.without(near) if removes else source


def make_plan(edit: EditArguments) -> Plan:
    return Plan(
        principles=tuple(edit.principles),
        weights=tuple(edit.principle_weights) or None,
        num_negatives=edit.num_negatives,
        num_edits=edit.num_edits,
        max_attempts=edit.max_attempts,
        seed=edit.seed,
        limits=Limits(length_ratio=edit.max_length_ratio, changed_share=edit.max_changed_share),
        shares=Shares(edit.validation_share, edit.test_share, edit.seed),
    )


def content_of(kind: str, model: str | None) -> str | None:
    """A model by what it is rather than where it lies."""
    if model is not None and kind == "transformers" and Path(model).is_dir():
        from diffusers_tpo.models.fingerprints import fingerprint

        return fingerprint(model)
    return model


def identity_of(edit: EditArguments, chat: ChatArguments, verify: VerifyArguments, source: Source) -> dict:
    """Whatever decides what the result is. A folder goes on only with the same; it stays in the folder and is never pushed.

    What verifies, and who edits what is left, may be added when everything else is done.
    """
    answers = {"temperature": chat.temperature, "max_tokens": chat.max_tokens, "extra_body": chat.extra_body}
    versions = {"template_version": TEMPLATE_VERSION, "diffusers_tpo": __version__}
    first = {name: value for name, value in asdict(edit).items() if name not in ("then", "then_model")}
    then, judge = None, None
    if edit.then is not None:
        then = {"editor": edit.then, "model": content_of(edit.then, edit.then_model or edit.model)}
    if verify.verify:
        judge = {"judges": verify.verify, "model": content_of(verify.verify_with, verify.verify_model)}
        judge |= {"refused": verify.refused, "extra_body": verify.verify_extra_body, "version": VERIFY_VERSION}
    model = content_of(edit.editor, edit.model if edit.editor in ("chat", "transformers") else None)
    return {**first, **answers, **versions, **source.fingerprints(), "model": model, "then": then, "verify": judge}


class Progress:
    """A bar of captions with failures, tokens and cost beside its rate and the time left."""

    def __init__(self, total: int, prices: Prices):
        self.bar = tqdm(total=total, unit="captions", smoothing=0.05)
        self.prices = prices
        self.started = False

    def show(self, tally: Tally) -> None:
        if not self.started:  # what earlier runs did is no part of the rate
            self.bar.initial = self.bar.n = self.bar.last_print_n = tally.captions
            self.started = True
        shown = {"failed": tally.failed}
        if tally.tokens:
            shown["tokens"] = f"{tally.tokens / 1000:.1f}k"
        if self.prices.are_known:
            shown["cost"] = f"${self.prices.cost(tally):.4f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(tally.captions - self.bar.n)


def make_stages(
    source: Source, edit: EditArguments, chat: ChatArguments, verify: VerifyArguments, token: str | None
) -> Stages:
    """Who works on every caption."""
    editor = make_editor(edit.editor, edit.model, chat, source, token)
    then = make_editor(edit.then, edit.then_model or edit.model, chat, source, token) if edit.then else None
    return Stages(editor, make_plan(edit), make_verifier(verify, chat, source, token), then)


def prices_of(chat: ChatArguments, verify: VerifyArguments) -> Prices:
    return Prices(tuple(chat.price_per_million_tokens), tuple(verify.verify_price_per_million_tokens))


def edit_captions(
    source: Source, edit: EditArguments, chat: ChatArguments, verify: VerifyArguments, output: OutputArguments
) -> dict:
    """Gets the mismatched prompts; returns how many there were, and what they cost."""
    folder = Path(output.output_dir)
    prices = prices_of(chat, verify)
    stages = make_stages(source, edit, chat, verify, output.hub_token)
    progress = Progress(len(source.rows), prices)
    try:
        tally = build(
            source,
            stages.editor,
            stages.plan,
            folder,
            identity_of(edit, chat, verify, source),
            rows_per_shard=edit.rows_per_shard or (1000 if source.image_column else 10_000),
            retry_failed=output.retry_failed,
            progress=progress.show,
            verifier=stages.verifier,
            then=stages.then,
        )
    except KeyboardInterrupt:
        print(f"\nstopped; {folder} keeps every answer that came: run the same command to go on", file=sys.stderr)
        sys.exit(130)
    finally:
        progress.bar.close()
    say_failures(folder, tally)
    return tally.figures(prices) | {"languages": languages_of_failed(folder)}


def say_failures(folder: Path, tally: Tally) -> None:
    """Says why captions got no answer; that there is no edit at all is an error."""
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


def merge(source: SourceArguments, edit: EditArguments, output: OutputArguments) -> None:
    """Writes the rows of several finished sets as one."""
    begin(Path(output.output_dir), {"merged": [source.dataset_name, *output.merge]}, is_own=lambda name: False)
    parts = {}
    for argument, name in (("dataset_name", source.dataset_name), *(("merge", name) for name in output.merge)):
        rows = load_rows(name, split=source.dataset_split, token=output.hub_token, argument=argument)
        parts[short_name(name) if short_name(name) not in parts else name] = rows
    written, joined = merge_sets(parts, Path(output.output_dir), edit.rows_per_shard or 1000)
    print(f"{written} rows of {len(parts)} sets; {joined} more were joined to rows of the same image and caption")


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


def settings_of(edit: EditArguments, verify: VerifyArguments, output: OutputArguments) -> dict[str, object]:
    """What the card says of how the set was made: what matters, and what is not the default."""
    if output.join_images is not None:
        return {"joined with": public_name(output.join_images, "data set")}
    if output.merge:
        return {"merged with": ", ".join(public_name(name, "data set") for name in output.merge)}
    defaults = asdict(EditArguments())
    chosen = {name: value for name, value in asdict(edit).items() if name in SHOWN or value != defaults[name]}
    settings = chosen | {"template_version": TEMPLATE_VERSION, "principles": ", ".join(edit.principles)}
    if verify.verify:
        judge = {"verify": " and ".join(verify.verify), "verify_model": verify.verify_model, "refused": verify.refused}
        settings |= judge | {"verify_version": VERIFY_VERSION}
    for name in ("model", "then_model", "verify_model"):
        if settings.get(name) is not None:
            settings[name] = short_name(settings[name])
    return public_config(settings)


def audit_set(folder: Path, generation: dict, seed: int, output: OutputArguments, embed: Callable | None) -> dict:
    """The figures of what was built, with their warnings; they stay in `audit.json`."""
    figures = audit(stream_texts(folder), output.audit_sample, seed, embed)
    figures["generation"] = generation
    figures["warnings"] = warnings_of(figures, AuditLimits(blind_accuracy=output.max_blind_accuracy))
    write_whole(folder / "audit.json", json.dumps(figures, indent=2, ensure_ascii=False))
    return figures


def write_card(
    folder: Path,
    repo: str,
    figures: dict,
    source: SourceArguments,
    edit: EditArguments,
    verify: VerifyArguments,
    output: OutputArguments,
) -> Path:
    """Writes the page of the data set; one that somebody has changed stays as it is."""
    page = DatasetPage(
        repo=repo,
        features=stream_built(folder).features,
        splits=sizes_of(folder),
        license=output.license,
        language=output.language,
        example=next(stream_texts(folder)),
        source=origin_of(source),
        key=source.key_column,
        template_version=TEMPLATE_VERSION,
        settings=settings_of(edit, verify, output),
        principles=[PRINCIPLES[name] for name in figures["principles"] if name in PRINCIPLES],
        audit=report_tables(figures),
        warnings=figures["warnings"],
        with_failed=figures["generation"].get("failed", 0) > 0,
        editors=tuple(figures["editors"]),
        shares={name: f"{found['share']:.0%}" for name, found in figures["principles"].items()},
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


def main(
    source: SourceArguments, edit: EditArguments, chat: ChatArguments, verify: VerifyArguments, output: OutputArguments
) -> None:
    check_arguments(source, edit, chat, verify, output)
    datasets.disable_progress_bars()

    # What only the end needs: better missed here than there.
    for package in ("inflect", "nltk", "rich", "sklearn"):
        require(package, extra="negatives")
    embed = sentence_embedder(output.embedding_model) if output.embedding_model else None

    # What it would take, without taking it.
    if output.dry_run is not None:
        captions = without_near(open_source(source, output.hub_token, with_images=True), source)
        stages = make_stages(captions, edit, chat, verify, output.hub_token)
        at_once = chat.concurrency if "chat" in (edit.editor, edit.then) or verify.verify else 1
        found = estimate(captions, stages, output.dry_run, at_once, prices_of(chat, verify))
        print("\n".join(found.lines()))
        return

    # Where it goes: no other run works there, and a wrong token is known here, not after the edits.
    folder = Path(output.output_dir)
    with only_run(folder):
        repo = output.hub_dataset_id or folder.resolve().name
        if output.push_to_hub:
            repo = own_name(repo, output.hub_token)

        # What it is made from, and the mismatched prompts; or finished sets, which only get images or each other's rows.
        generation = {}
        if output.join_images is not None:
            join(open_source(source, output.hub_token, with_images=False), source, edit, output)
        elif output.merge:
            merge(source, edit, output)
        else:
            captions = without_near(open_source(source, output.hub_token, with_images=True), source)
            generation = edit_captions(captions, edit, chat, verify, output)

        # What the set is worth, in figures, on its card, and to look at.
        figures = audit_set(folder, generation, edit.seed, output, embed)
        card = write_card(folder, repo if "/" in repo else f"your-name/{repo}", figures, source, edit, verify, output)
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
        main(
            *parse_flags(
                SourceArguments, EditArguments, ChatArguments, VerifyArguments, OutputArguments, description=__doc__
            )
        )
