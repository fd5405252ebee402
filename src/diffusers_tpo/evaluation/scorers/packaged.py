"""HPSv2, HPSv3, ImageReward and the LAION aesthetic predictor, run by the package diffsynth. Knows nothing of how they work."""

from functools import partial
from pathlib import Path

from PIL import Image

from ...errors import UserError, require
from .protocol import loading_error


REPOSITORY = "DiffSynth-Studio/ImageMetrics"
# the class in diffsynth.metrics, its folder in the repository, the argument for the files beside the weights
METRICS = {
    "hpsv2": ("HPSv2Metric", "HPSv2", "processor_config"),
    "hpsv3": ("HPSv3Metric", "HPSv3", "processor_config"),
    "imagereward": ("ImageRewardMetric", "ImageReward", "tokenizer_config"),
    "aesthetic": ("AestheticMetric", "Aesthetic", "processor_config"),
}


class PackagedScorer:
    """One metric of `diffsynth.metrics`, which holds these models in a form that today's transformers can load.

    The numbers are diffsynth's: `hpsv2` is the cosine times the model's scale of about 100, where the paper's own package gives the
    cosine. Its weights come from ModelScope, or from the Hugging Face Hub with `DIFFSYNTH_DOWNLOAD_SOURCE=huggingface`.

    Args:
        name: one of [`METRICS`].
        device: where the model runs.
        cache_dir: folder for the download; diffsynth takes `./models` if `None`, and `DIFFSYNTH_MODEL_BASE_PATH` goes before both.
        token: not used, the weights are public.
        batch_size: images per forward pass.

    Raises:
        UserError: if diffsynth is missing, or it cannot load the model.
    """

    def __init__(
        self,
        name: str,
        device: str = "cpu",
        cache_dir: str | Path | None = None,
        token: str | None = None,
        batch_size: int = 8,
    ):
        class_name, folder, companion = METRICS[name]
        self.name, self.batch_size = name, batch_size
        self.kinds = {name: "aesthetics" if name == "aesthetic" else "adherence"}
        try:
            metrics = require("diffsynth.metrics", "scorers")
            source = partial(metrics.ModelConfig, model_id=REPOSITORY, local_model_path=cache_dir)
            self.metric = getattr(metrics, class_name).from_pretrained(
                model_config=source(origin_file_pattern=f"{folder}/model.safetensors"),
                device=device,
                **{companion: source(origin_file_pattern=f"{folder}/")},
            )
        except UserError:
            raise
        except Exception as error:  # downloaders and a torchvision that does not fit torch raise errors of many types
            raise loading_error(name, f"{REPOSITORY}/{folder}", error) from error

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> dict[str, list[float]]:
        scores = []
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            sees = (images[rows],) if self.name == "aesthetic" else (prompts[rows], images[rows])
            scores += self.metric.score(*sees)
        return {self.name: scores}


hpsv2 = partial(PackagedScorer, "hpsv2")
hpsv3 = partial(PackagedScorer, "hpsv3")
imagereward = partial(PackagedScorer, "imagereward")
aesthetic = partial(PackagedScorer, "aesthetic")
