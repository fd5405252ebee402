"""Tiny pipelines whose text encoder is a language model, built from configs: 16x16 images, latents of 8x8."""

from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)


WIDTH = 16
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "eos_token_id": None,
}
VAE_LEVELS = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "latent_channels": 4,
}
CHAT = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{{ message.content[0].text }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_qwen_tokenizer(**options) -> Qwen2Tokenizer:
    """Every byte is a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(letters)}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], chat_template=CHAT, **options)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")])
    return tokenizer


def make_qwen_image() -> QwenImagePipeline:
    tokenizer = make_qwen_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
        },
    )
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[-0.4, 0.3, 0.1, -0.2],
        latents_std=[1.5, 0.7, 2.0, 1.1],
    )
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def make_flux2_vae() -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(**VAE_LEVELS, batch_norm_eps=0.1)
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.2, 3)
    return vae


def make_flux2_transformer(guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=guidance_embeds,
    )


def make_flux2() -> Flux2Pipeline:
    """A tokenizer stands for the processor, which differs for images alone; the pipeline reads layers up to the 30th."""
    tokenizer = make_qwen_tokenizer(padding_side="left")
    config = Mistral3Config(
        text_config=TEXT
        | {"model_type": "mistral", "vocab_size": len(tokenizer), "num_hidden_layers": 30, "sliding_window": None},
        vision_config={
            "model_type": "pixtral",
            "hidden_size": WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": 30,
            "patch_size": 6,
        },
        image_token_index=1,
    )
    pipe = Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=make_flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=tokenizer,
        transformer=make_flux2_transformer(guidance_embeds=True),
    )
    pipe.system_message = "Paint."  # its own is longer than all prompts
    return pipe


def make_qwen3_config(tokenizer, **options) -> Qwen3Config:
    return Qwen3Config(**TEXT | {"vocab_size": len(tokenizer), "head_dim": 8} | options)


def make_klein() -> Flux2KleinPipeline:
    """The pipeline reads layers up to the 27th."""
    tokenizer = make_qwen_tokenizer()
    config = make_qwen3_config(tokenizer, num_hidden_layers=27)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=make_flux2_vae(),
        text_encoder=Qwen3ForCausalLM(config),
        tokenizer=tokenizer,
        transformer=make_flux2_transformer(guidance_embeds=False),
    )


def make_z_image() -> ZImagePipeline:
    tokenizer = make_qwen_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=(8, 4, 4),
        axes_lens=(1024, 32, 32),
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(**VAE_LEVELS, shift_factor=0.12, scaling_factor=0.36),
        text_encoder=Qwen3Model(make_qwen3_config(tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer,
    )


MAKERS = {"qwen_image": make_qwen_image, "flux2": make_flux2, "klein": make_klein, "z_image": make_z_image}
