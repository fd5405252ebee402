#!/usr/bin/env python
"""How many prompts the rules can edit, by which principles, and a sample of the edits to be read one by one.

    python examples/text_preference/study_rules.py --captions prompts.txt tags.txt --output_dir outputs/rules

Each file is a list of prompts, one a line. A sample says nothing of where an edit comes from: judge it blind, then count.
"""

import datetime
import json
import random
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.files import make_folder
from diffusers_tpo.flags import Range, flag
from diffusers_tpo.intervals import share_interval
from diffusers_tpo.negatives.rules.editor import RulesEditor, count_words
from diffusers_tpo.negatives.work import CaptionWork, Plan, Result
from diffusers_tpo.principles import PRINCIPLES
from diffusers_tpo.tables import Percent, Table, write_tables


def edit_all(captions: list[str], editor: RulesEditor, plan: Plan) -> list[Result]:
    """What comes of every caption, as build_negatives.py would have it."""
    results = []
    for row, caption in enumerate(captions):
        work = CaptionWork(row, caption, plan)
        while (request := work.request()) is not None:
            for _, answer in editor.edit([request]):
                work.receive(answer.captions)
        results.append(work.result())
    return results


def share(values: list[bool]) -> Percent:
    return Percent(**vars(share_interval(values)))


def report(files: dict[str, list[str]], seed: int) -> tuple[dict[str, Table], list[dict[str, str]]]:
    """The tables, and one edit of every caption that has any."""
    coverage, mix, edits = [], [], []
    for name, captions in files.items():
        editor = RulesEditor(count_words(captions))
        drawn = edit_all(captions, editor, Plan(seed=seed))
        alone = {
            principle: edit_all(captions, editor, Plan(principles=(principle,), seed=seed)) for principle in PRINCIPLES
        }
        found = [result for result in drawn if result.principles]
        shares = [share([bool(each.principles) for each in results]) for results in (drawn, *alone.values())]
        coverage.append([name, str(len(captions)), *shares])
        mix.append([name, *(share([each.principles[0] == principle for each in found]) for principle in PRINCIPLES)])
        edits += [
            {"caption": captions[each.row], "edited": each.negative_prompts[0], "principle": each.principles[0]}
            for each in found
        ]
    tables = {
        "coverage": Table(["prompts", "number", "any principle", *(f"{name} alone" for name in PRINCIPLES)], coverage),
        "mix": Table(["prompts", *PRINCIPLES], mix),
    }
    return tables, edits


@dataclass
class StudyArguments:
    """What is edited, and where everything goes."""

    captions: list[str] = flag(help="Files of prompts, one a line.")
    output_dir: str = flag(help="Tables and the sample.")
    num_read: Annotated[int, Range(at_least=1, at_most=100_000)] = flag(300, "Edits in the sample that is read.")
    seed: Annotated[int, Range(at_least=0, below=2**32)] = flag(0, "Of the edits and of the sample.")


def main(args: StudyArguments) -> None:
    output = Path(args.output_dir)
    make_folder(output, "--output_dir")
    files = {}
    for name in args.captions:
        try:
            lines = Path(name).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--captions: {name} cannot be read: {error}") from None
        files[Path(name).stem] = [line for line in lines if line.strip()]
        if not files[Path(name).stem]:
            raise UserError(f"--captions: {name} holds no prompt")

    tables, edits = report(files, args.seed)
    for name, table in tables.items():
        print(f"\n{name}\n\n{table.markdown()}")
    sample = random.Random(args.seed).sample(edits, min(args.num_read, len(edits)))
    (output / "sample.jsonl").write_text("".join(json.dumps(edit) + "\n" for edit in sample), encoding="utf-8")
    write_tables(
        output / "rules.json",
        tables,
        command=shlex.join(["python", "examples/text_preference/study_rules.py", *sys.argv[1:]]),
        date=str(datetime.date.today()),
        seeds=[args.seed],
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(StudyArguments, description=__doc__))
