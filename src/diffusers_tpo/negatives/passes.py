"""Goes through captions until each is done: asks an editor, has judges look at the edits, and asks again. Writes no rows."""

from collections.abc import Callable, Iterable, Iterator

from ..errors import UserError
from .editors import Answer, Editor, EditRequest, Edits, failure_of
from .journal import Journal
from .tally import Tally
from .verifier import Opinion, Opinions, Question, Verifier
from .work import CaptionWork, Plan, Result


FAILURES_IN_A_ROW = 100


class Guarded:
    """An editor that ends the run when it fails many times in a row, rather than setting every caption aside."""

    def __init__(self, editor: Editor):
        self.editor, self.name, self.failures = editor, editor.name, 0

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer | Edits]]:
        for request, answer in self.editor.edit(requests):
            failure = failure_of(answer)
            self.failures = 0 if failure is None else self.failures + 1
            if self.failures >= FAILURES_IN_A_ROW:
                raise UserError(
                    f"the editor failed {self.failures} times in a row, at last with {failure!r}; check it and run "
                    "the same command again: no answer that came is lost"
                )
            yield request, answer


class Judged:
    """A verifier with the opinions that it has given about some captions, for [`work_through`]."""

    def __init__(self, verifier: Verifier, opinions: Opinions):
        self.verifier, self.opinions = verifier, opinions

    def settle(self, work: CaptionWork) -> None:
        """Tells a caption what is known of its edits."""
        keep, judges = self.verifier.keep_refused, self.verifier.judges
        if self.opinions.about(work.row, work.caption, ("image",)) and not work.prompt_verdict:
            work.judge_caption(keep)
        for candidate in work.candidates:
            refused = self.opinions.about(work.row, candidate.text, judges)
            if refused is not None:
                work.judge(candidate.text, refused, keep)

    def ask(self, works: Iterable[CaptionWork], tally: Tally, progress: Callable[[Tally], None]) -> None:
        """Has every waiting edit judged."""
        works = list(works)
        for work in works:
            self.settle(work)
        waiting = {work.row: work for work in works if work.candidates}
        questions = [Question(work.row, work.caption, work.candidates) for work in waiting.values()]
        for found in self.verifier.ask(questions, self.opinions):
            if isinstance(found, Opinion):
                tally.add_opinion(found)
                self.settle(waiting[found.row])
            else:
                row, failure = found
                waiting[row].failure = failure
            progress(tally)


def replay(works: dict[int, CaptionWork], journal: Journal, judged: Judged | None, tally: Tally) -> None:
    """Brings captions to where an earlier run left them."""
    for record in journal.records:
        tally.add_answer(record)
        if (work := works.get(record.row)) is None:  # of a caption that is no longer asked about
            continue
        if judged:
            judged.settle(work)
        work.receive(record.answer, record.slots)


def work_through(
    captions: dict[int, str],
    editor: Editor,
    plan: Plan,
    journal: Journal,
    progress: Callable[[Tally], None] = lambda tally: None,
    judged: Judged | None = None,
) -> tuple[list[Result], Tally]:
    """Gets mismatched prompts for some captions: first from the journal, then from the editor.

    Args:
        captions: text of every caption by its number.
        progress: called with the tally of this call after every answer.
        judged: has every edit judged that passes the checks of its words; one that is refused is asked for again.
    """
    tally = Tally()
    works = {number: CaptionWork(number, caption, plan, judged is not None) for number, caption in captions.items()}
    replay(works, journal, judged, tally)
    results: dict[int, Result] = {}

    def finish(work: CaptionWork) -> None:
        if work.is_done and work.row not in results:
            results[work.row] = work.result()
            tally.add_result(results[work.row])

    while True:
        if judged:
            judged.ask(works.values(), tally, progress)
        for work in works.values():
            finish(work)
        progress(tally)
        if len(results) == len(works):
            return [results[number] for number in works], tally
        waiting = (work.request() for number, work in works.items() if number not in results)
        for request, answer in editor.edit(request for request in waiting if request is not None):
            work, failure = works[request.row], failure_of(answer)
            if failure is None:
                record = journal.append(request, answer)
                tally.add_answer(record)
                work.receive(record.answer, record.slots)
            else:
                work.failure = failure
            finish(work)
            progress(tally)
