"""Scores from one CLIP model: CLIPScore and PickScore. Knows nothing of where images come from."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from ...errors import UserError
from .protocol import loading_error


if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class ClipSimilarity:
    """Cosine similarity of every image with its own prompt.

    Prompts longer than the text encoder can read are cut at its end. Images are prepared by Pillow, so that scores do not depend on
    whether torchvision is installed. The model computes in float32.

    Args:
        scorer: name for error messages.
        model: Hub id or folder of a CLIP model in safetensors.
        processor: Hub id or folder of its tokenizer and image processor.

    Raises:
        UserError: if one of them cannot be loaded.
    """

    def __init__(
        self,
        scorer: str,
        model: str,
        processor: str,
        device: str,
        cache_dir: str | Path | None,
        token: str | None,
        batch_size: int,
    ):
        from transformers import AutoConfig, AutoTokenizer, CLIPModel
        from transformers.models.auto.image_processing_auto import AutoImageProcessor

        hub = {"cache_dir": cache_dir, "token": token, "trust_remote_code": False}
        part = processor
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(processor, **hub)
            self.processor = AutoImageProcessor.from_pretrained(processor, backend="pil", **hub)
            part = model
            config = AutoConfig.from_pretrained(model, **hub)
            check_config(scorer, model, config, processor, self.tokenizer)
            self.model, loaded = CLIPModel.from_pretrained(
                model, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **hub
            )
        except UserError:
            raise
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise loading_error(scorer, part, error) from error
        if missing := loaded["missing_keys"]:
            raise UserError(
                f"scorer {scorer!r} needs a whole CLIP model, and {model!r} lacks {len(missing)} of its weights, such as "
                f"{min(missing)}"
            )
        self.model.eval().to(device)
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """`(N,)` between -1 and 1, on the CPU."""
        parts = [torch.empty(0)]
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            output = self.model(**self._inputs(images[rows], prompts[rows]))
            parts.append((output.image_embeds * output.text_embeds).sum(dim=-1).cpu())  # both have length one
        return torch.cat(parts)

    def _inputs(self, images: list[Image.Image], prompts: list[str]) -> dict[str, Tensor]:
        longest = self.model.config.text_config.max_position_embeddings
        text = self.tokenizer(prompts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        pixels = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        inputs = {**text, **pixels}
        return {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask", "pixel_values")}


def check_config(
    scorer: str, model: str, config: "PretrainedConfig", processor: str, tokenizer: "PreTrainedTokenizerBase"
) -> None:
    """Raises [`UserError`] for a model that is no CLIP, or a tokenizer that is not the model's."""
    from transformers import CLIPConfig

    if not isinstance(config, CLIPConfig):
        raise UserError(f"scorer {scorer!r} needs a CLIP model, and {model!r} is of type {config.model_type!r}")
    known = config.text_config.vocab_size
    if len(tokenizer) != known:  # a folder without tokenizer files gives an empty one
        raise UserError(
            f"scorer {scorer!r} needs a tokenizer of {known} tokens, as many as {model!r} knows, and that of "
            f"{processor!r} has {len(tokenizer)}"
        )


class ClipScore:
    """CLIPScore in percent, `max(100 * cosine, 0)`: the convention of torchmetrics, by which most papers on images report it.

    The paper (huggingface.co/papers/2104.08718) has `2.5 * max(cosine, 0)` and puts "A photo depicts" before every caption; here the
    prompt stands as it is.

    Args:
        model: Hub id or folder of a CLIP model with its tokenizer and image processor.
        device: where it runs.
        cache_dir: folder for the download.
        token: for the Hub.
        batch_size: images per forward pass; has no influence on the scores.

    Raises:
        UserError: if the model cannot be loaded.
    """

    kinds = {"clip": "adherence"}

    def __init__(
        self,
        model: str = "openai/clip-vit-large-patch14",
        device: str = "cpu",
        cache_dir: str | Path | None = None,
        token: str | None = None,
        batch_size: int = 32,
    ):
        self.similarity = ClipSimilarity("clip", model, model, device, cache_dir, token, batch_size)

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> dict[str, list[float]]:
        return {"clip": (100 * self.similarity(images, prompts)).clamp(min=0).tolist()}


class PickScore:
    """PickScore (huggingface.co/papers/2305.01569): cosine times the model's learned scale, which is close to 100.

    It was trained on human choices between images of one prompt, so it judges adherence and beauty together.

    Args:
        model: Hub id or folder of the model.
        processor: Hub id or folder of its tokenizer and image processor.
        device, cache_dir, token, batch_size: as for [`ClipScore`].

    Raises:
        UserError: if the model or its processor cannot be loaded.
    """

    kinds = {"pickscore": "adherence"}

    def __init__(
        self,
        model: str = "yuvalkirstain/PickScore_v1",
        processor: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        device: str = "cpu",
        cache_dir: str | Path | None = None,
        token: str | None = None,
        batch_size: int = 32,
    ):
        self.similarity = ClipSimilarity("pickscore", model, processor, device, cache_dir, token, batch_size)

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> dict[str, list[float]]:
        scale = self.similarity.model.logit_scale.detach().exp().cpu()
        return {"pickscore": (scale * self.similarity(images, prompts)).tolist()}
