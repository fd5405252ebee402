"""What the rules may make of a caption, by whatever chance."""

from diffusers_tpo.negatives.language.caption import Caption
from diffusers_tpo.negatives.rules import editor as rules
from diffusers_tpo.principles import PRINCIPLES


def every_edit(caption: str, principle: str) -> set[str]:
    """All that one edit may make of a caption, by whatever chance."""
    parsed, found = Caption(caption), set()
    for find in (rules.candidates, rules.last_candidates):
        for make, arguments in find(parsed, principle):
            found |= {parsed.replaced(option) for option in make(*arguments) if rules.is_usable(parsed, option, set())}
    return found


def any_edit(caption: str) -> set[str]:
    return {edit for principle in PRINCIPLES for edit in every_edit(caption, principle)}
