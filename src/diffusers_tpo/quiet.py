"""Keeps out of the log what other libraries say and nobody can act on, and what they say of every prompt again.

Imports none of them: it knows their loggers by name.
"""

import logging


PIPELINES = "diffusers.pipelines"
NEVER = {
    "transformers.utils.import_utils": "requires torchvision (not installed)",  # pictures are read without it
    "transformers.tokenization_utils_base": "Token indices sequence length is longer",  # they are cut before they are read
    "diffusers.loaders.lora_base": "No LoRA keys associated to",  # a LoRA of the denoiser alone
}
CUT = "part of your input was truncated"
CUTTING = (  # the pipelines that say so
    f"{PIPELINES}.flux.pipeline_flux",
    f"{PIPELINES}.pixart_alpha.pipeline_pixart_alpha",
    f"{PIPELINES}.pixart_alpha.pipeline_pixart_sigma",
    f"{PIPELINES}.stable_diffusion.pipeline_stable_diffusion",
    f"{PIPELINES}.stable_diffusion_3.pipeline_stable_diffusion_3",
    f"{PIPELINES}.stable_diffusion_xl.pipeline_stable_diffusion_xl",
)


class Without(logging.Filter):
    """Lets no message through that has a phrase in it."""

    def __init__(self, phrase: str):
        super().__init__()
        self.phrase = phrase

    def filter(self, record: logging.LogRecord) -> bool:
        return self.phrase not in record.getMessage()


class FirstOnly(logging.Filter):
    """Of the messages with a phrase in them, whoever says them, lets the first through, which says so."""

    def __init__(self, phrase: str):
        super().__init__()
        self.phrase, self.is_said = phrase, False

    def filter(self, record: logging.LogRecord) -> bool:
        if self.phrase not in record.getMessage():
            return True
        if self.is_said:
            return False
        self.is_said = True
        record.msg, record.args = f"{record.getMessage()} (said of the first such prompt only)", ()
        return True


def install() -> None:
    """Adds the filters to the loggers; a second call adds none."""
    cut = FirstOnly(CUT)
    for name, phrase in NEVER.items():
        _add(logging.getLogger(name), Without(phrase))
    for name in CUTTING:
        _add(logging.getLogger(name), cut)


def _add(logger: logging.Logger, filter: logging.Filter) -> None:
    if not any(isinstance(one, type(filter)) for one in logger.filters):
        logger.addFilter(filter)
