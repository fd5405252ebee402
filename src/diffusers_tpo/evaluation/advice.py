"""What to expect of text preferences on a base, from what was seen of it. Knows the rules and their evidence; measures nothing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..intervals import Interval, mean_interval
from ..principles import PRINCIPLES
from .compare import at_own_best, best_scale
from .results import Results


TOLD_APART = 0.95  # share of pairs; above it a base counts as one that tells them apart
CHANCE = 0.5
LEARNS = 0.005  # share of the error at held-out prompts; below it supervised training counts as done
ACCURACY = "implicit/accuracy_corrected"
GAIN = "reward/matched_relative"


@dataclass(frozen=True)
class Signs:
    """What was seen of a base.

    Attributes:
        accuracies: by principle, the share of held-out pairs whose image it denoises better when told the matched prompt, as it
            would be without the noise of the draws; with a mean of nan where the draws were too few to tell. Of pairs whose principles
            nobody named, under "all edits".
        scales: the guidance scales that were asked, the lowest first; none if nothing was rendered.
        best: of these, the one whose images were judged best.
        guided_gain: what the best adds to the score at the lowest; for each tenth of the prompts the best is chosen on the others.
        supervised_gain: by how much of the error at held-out matched prompts a short supervised training lowered it; `None` if none
            was made.
    """

    accuracies: dict[str, Interval]
    scales: tuple[float, ...] = ()
    best: float | None = None
    guided_gain: Interval | None = None
    supervised_gain: Interval | None = None

    def told_apart(self) -> list[str]:
        return [name for name, share in self.accuracies.items() if share.mean >= TOLD_APART]

    def confused(self) -> list[str]:
        """Some are told apart, and some are not."""
        return [name for name, share in self.accuracies.items() if share.mean < TOLD_APART and share.low > CHANCE]

    def at_chance(self) -> list[str]:
        return [name for name, share in self.accuracies.items() if share.mean < TOLD_APART and share.low <= CHANCE]

    def unknown(self) -> list[str]:
        return [name for name, share in self.accuracies.items() if np.isnan(share.mean)]

    def needs_guidance(self) -> bool:
        return self.guided_gain is not None and self.best != self.scales[0] and self.guided_gain.low > 0

    def needs_none(self) -> bool:
        return self.guided_gain is not None and not self.needs_guidance()

    def still_learns(self) -> bool:
        return self.supervised_gain is not None and self.supervised_gain.mean > LEARNS and self.supervised_gain.low > 0

    def has_learned(self) -> bool:
        return self.supervised_gain is not None and not self.still_learns()


def signs_of(pairs: Results, renders: Results | None) -> Signs:
    """What evaluations saw of a base.

    Args:
        pairs: what the base, the first model, and what a short supervised training made of it, if there is a second one, say of
            held-out pairs.
        renders: of the base at several guidance scales; the first score that says how well images follow prompts chooses among them.

    Raises:
        UserError: if there is no such score.
    """
    base = pairs.preference[pairs.models[0]]
    named = {
        name.removeprefix(f"{ACCURACY}/"): values for name, values in base.items() if name.startswith(f"{ACCURACY}/")
    }
    asked = named or {"all edits": base[ACCURACY]}
    accuracies = {name: mean_interval(values).inside(0, 1) for name, values in asked.items()}
    trained = pairs.preference[pairs.models[1]] if len(pairs.models) > 1 else {}
    gain = mean_interval(trained[GAIN]) if GAIN in trained else None
    if renders is None:
        return Signs(accuracies, supervised_gain=gain)
    metrics = renders.metrics("adherence")
    if not metrics:
        raise UserError(
            "--scorer says only how good an image looks; give one that says how well it follows its prompt"
        )
    order = np.argsort(renders.scales)
    scales = tuple(float(renders.scales[index]) for index in order)
    scores = renders.scores[metrics[0]][0][order]
    return Signs(accuracies, scales, scales[best_scale(scores)], mean_interval(at_own_best(scores) - scores[0]), gain)


@dataclass(frozen=True)
class Rule:
    """What follows from a sign.

    Attributes:
        holds: whether it applies, and to which principles where it speaks of some: an empty list is no.
        says: what to expect; `{names}` are the principles, `{best}` is the best guidance scale.
        flags: of the training to begin with.
        evidence: what was measured, on which base.
    """

    holds: Callable[[Signs], bool | list[str]]
    says: str
    flags: str
    evidence: str


RULES = (
    Rule(
        Signs.unknown,
        "{names}: too few draws to tell. Ask again with more --num_pairs, --strata or --repeats.",
        "",
        "Less than a tenth of what the margins vary is not noise: then no share can be estimated, see corrected_accuracy.",
    ),
    Rule(
        Signs.told_apart,
        "{names}: the base already knows which caption fits. A preference has little to teach it there: what these images lack is "
        "drawing, which supervised training teaches.",
        "",
        "Shipped base, which tells 99.8 % apart, LoRA (docs/shapes_results.md): TDPO beats supervised training of the same time by 3.4 points [2.0, 4.8] at "
        "guidance 1, and not at each one's best: 0.9 [-0.4, 2.1]. Web base, which tells 99.9 % apart (docs/when_it_helps.md): -0.4 [-5.1, 4.3] at each "
        "one's best, guided with the base's empty prompt.",
    ),
    Rule(
        Signs.confused,
        "{names}: the base confuses captions with edited ones. That is what text preferences are for.",
        "--principles {principles}",
        "Not tested: no base of the study confuses so many pairs.",
    ),
    Rule(
        Signs.at_chance,
        "{names}: the base cannot tell the edits from the captions at all. Look at some of them first: an edit that no one can see in the "
        "image teaches nothing. If they are right, its text encoder may not tell the words apart, and then the denoiser alone cannot.",
        "",
        "Not tested. Real models stand near chance with relations (https://huggingface.co/papers/2505.17955).",
    ),
    Rule(
        Signs.still_learns,
        "Supervised training still lowers the error at held-out captions. Do that first, until it gains no more, and begin preferences from "
        "what it leaves: in the same time it gains at least as much as they do, with less that can go wrong.",
        "",
        "Web base, LoRA, one seed (docs/when_it_helps.md), each at its best guidance: supervised training of the same time gains 16.0 points "
        "[9.8, 22.2], TDPO 10.2 [4.4, 15.9], and 15.6 [9.7, 21.6] guided with the base's empty prompt. Two stages were not tested.",
    ),
    Rule(
        Signs.has_learned,
        "Supervised training gains nothing more. What text preferences add is theirs: expect images that need less guidance, not better ones at the "
        "best guidance.",
        "",
        "Converged base, LoRA, one seed (docs/when_it_helps.md): TDPO gains 6.2 points [2.7, 9.8] at guidance 1 and -0.8 [-4.0, 2.5] at each one's "
        "best; supervised training of the same time 0.0 [-3.9, 3.9] and -0.4 [-3.7, 3.0].",
    ),
    Rule(
        Signs.needs_guidance,
        "The base is best at guidance {best}. A preference between prompts acts like guidance in the weights, so guidance afterwards acts "
        "twice: let the base answer the empty prompt when sampling (guide_with_reference), and compare at {best}, not at {lowest}. Where only a "
        "stock pipeline can sample, hold the empty prompt instead, by --null_anchor 0.5 --null_keep 1.",
        "--guide_with reference",
        "Web base, LoRA, one seed (docs/when_it_helps.md): at guidance 2.5 TDPO lies 7.4 points [2.1, 12.7] below supervised training of the same "
        "time, and 1.6 [-2.8, 5.9] above it guided with the base's empty prompt.",
    ),
    Rule(
        Signs.needs_none,
        "The base is as good without guidance. Text preferences cost nothing there.",
        "",
        "Shipped base, LoRA, guidance 1 (docs/shapes_results.md): TDPO beats the base by 4.9 points [3.6, 6.3].",
    ),
)


@dataclass(frozen=True)
class Advice:
    """What a rule says of a base, and why."""

    says: str
    flags: str
    evidence: str


def advise(signs: Signs) -> list[Advice]:
    """All that the rules say of a base."""
    found = []
    for rule in RULES:
        what = rule.holds(signs)
        if not what:
            continue
        names = what if isinstance(what, list) else []
        known = [name for name in names if name in PRINCIPLES]
        words = {"names": ", ".join(names).capitalize(), "principles": " ".join(known)}
        if signs.best is not None:
            words |= {"best": f"{signs.best:g}", "lowest": f"{signs.scales[0]:g}"}
        flags = rule.flags.format(**words) if known or not names else ""
        found.append(Advice(rule.says.format(**words), flags, rule.evidence))
    return found


def first_flags(advices: list[Advice]) -> str:
    """The flags of the training to begin with."""
    return " ".join(["--use_lora --loss_type tdpo --anchor_weight 0.5", *(one.flags for one in advices if one.flags)])
