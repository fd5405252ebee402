"""What the server of `processes.py` imports once for all processes that it forks."""

import conftest  # the settings of every test come first
import diffusers  # noqa: F401
import openai  # noqa: F401
import tensorboard  # noqa: F401
import torch.distributed.tensor  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel  # noqa: F401
from diffusers.training_utils import EMAModel  # noqa: F401
from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

import diffusers_tpo.training.validation
import diffusers_tpo.training.watch  # noqa: F401


conftest.settle_libraries()
