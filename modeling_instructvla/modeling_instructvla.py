"""InstructVLA: one network that answers in words and drives a robot (paper section 3.1, arXiv 2507.17520)."""

import math
from dataclasses import dataclass

import torch
from timm.layers import LayerScale
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, GenerationMixin, PreTrainedModel, SiglipVisionModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .action_expert import ActionExpert, ExpertLinear
from .checkpoint_instructvla import CheckpointMixin
from .configuration_instructvla import InstructVLAConfig
from .convolutional_stem import ConvolutionalStem, StemConvolution
from .film_vision import FiLMLinear, FiLMVisionTransformer
from .generation_instructvla import ActionGenerationMixin
from .mixture_language_model import MixtureLanguageModel
from .vision_projector import VisionProjector
from .weight_precision import PrecisionMixin


@dataclass
class InstructVLAOutput(ModelOutput):
    """Output of `forward`.

    Args:
        loss: L = L_LM + L_FM, of the losses that the batch has (paper section 3.2).
        lm_loss: L_LM, mean cross-entropy over the labelled tokens.
        flow_loss: L_FM, see `ActionExpert.loss`.
        logits: (batch, kept, vocabulary), only for a batch without labels and actions.
        past_key_values: the KV cache, when `use_cache`.
        last_hidden_state: (batch, seq, text_hidden_size), after the final norm.
        latent_actions: C, (batch, num_action_queries, text_hidden_size), when the batch has actions.
    """

    loss: torch.Tensor | None = None
    lm_loss: torch.Tensor | None = None
    flow_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: DynamicCache | None = None
    last_hidden_state: torch.Tensor | None = None
    latent_actions: torch.Tensor | None = None


class InstructVLAForConditionalGeneration(
    ActionGenerationMixin, CheckpointMixin, PrecisionMixin, PreTrainedModel, GenerationMixin
):
    """SigLIP → projector → Qwen2 with action queries and adaptation experts → action expert.

    Like a loaded model, a new one is in evaluation mode until `train()` is called.
    """

    config_class = InstructVLAConfig
    _auto_class = "AutoModel"
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["MixtureDecoderLayer", "SiglipEncoderLayer", "FiLMBlock", "LlamaDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: InstructVLAConfig):
        super().__init__(config)
        self.vision_model = SiglipVisionModel(config.vision_config)
        self.projector = VisionProjector(
            config.vision_config.hidden_size, config.text_config.hidden_size, config.projector.downsample_ratio
        )
        self.language_model = MixtureLanguageModel(config.text_config, config.adapter_config)
        self.action_expert = ActionExpert(config)
        if config.stem_channels is not None:
            self.use_stems(config)
        self._processor = None
        self._processor_source: tuple[str, dict] | None = None
        self.post_init()
        self.eval()

    def use_stems(self, config: InstructVLAConfig) -> None:
        """Give both vision towers convolutional stems in place of their patch convolutions."""
        vision = config.vision_config
        self.vision_model.embeddings.patch_embedding = ConvolutionalStem(config.stem_channels, vision.hidden_size)
        if config.action_vision_config is not None:
            tower = self.action_expert.vision.patch_embed
            tower.proj = ConvolutionalStem(config.stem_channels, config.action_vision_config.embed_dim)

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, StemConvolution):
            init.kaiming_normal_(module.weight)
            init.zeros_(module.bias)
        if isinstance(module, FiLMLinear):
            init.zeros_(module.weight)
        elif isinstance(module, ExpertLinear):
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, LayerScale):
            init.constant_(module.gamma, 1e-5)
        elif isinstance(module, FiLMVisionTransformer):
            for embedding in (module.cls_token, module.reg_token, module.pos_embed):
                init.normal_(embedding, std=0.02)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        actions: torch.Tensor | None = None,
        action_pixel_values: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
        action_mask: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        flow_time: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        adapters: bool = True,
        return_dict: bool = True,
    ) -> InstructVLAOutput:
        """L = L_LM + L_FM for a training batch, logits for a plain one.

        Args:
            input_ids: (batch, seq), with the image tokens of `pixel_values` and, for actions, all queries in each row.
            attention_mask: (batch, cached + seq), 1 where a token counts; default: everywhere.
            pixel_values: (images, 3, image_size, image_size), the images of all rows one after the other.
            labels: (batch, seq), −100 where the token is no target; vocabulary logits are computed for targets alone.
            actions: normalised action chunks, (batch, horizon, action_dim).
            action_pixel_values: (batch, cameras, 3, image_size, image_size), for the action expert's vision tower.
            state: normalised, (batch, state_dim).
            action_mask: (batch, horizon), False where the chunk is padding, which may be NaN.
            noise, flow_time: ε and τ of the flow loss, `training_draws` per row, drawn when not given.
            logits_to_keep: how many last positions get logits; 0 means all.
            adapters: False runs the base VLM, as it was before adaptation: for text, not for actions. `generate` takes
                it, too.
        """
        self.check_batch(
            {
                "input_ids": input_ids,
                "inputs_embeds": inputs_embeds,
                "pixel_values": pixel_values,
                "labels": labels,
                "actions": actions,
                "action_pixel_values": action_pixel_values,
                "state": state,
                "action_mask": action_mask,
                "noise": noise,
                "flow_time": flow_time,
            }
        )
        if actions is not None and adapters is False:
            raise ValueError("adapters=False runs the base VLM, which never learnt to act; leave the actions out.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_prompt(input_ids, pixel_values)
        cache = past_key_values
        if use_cache and cache is None:
            cache = self.language_model.new_cache()
        if cache is not None and type(cache) is not type(self.language_model.new_cache()):
            raise ValueError("past_key_values must be a cache from model.language_model.new_cache(), for both passes.")
        cached = 0 if cache is None else cache.get_seq_length()
        self.check_length(cached + inputs_embeds.shape[1])
        if attention_mask is None:
            attention_mask = inputs_embeds.new_ones(len(inputs_embeds), cached + inputs_embeds.shape[1]).long()
        hidden = self.language_model(inputs_embeds, attention_mask, cache, position_ids, adapters)

        output = InstructVLAOutput(last_hidden_state=hidden, past_key_values=cache)
        if labels is None and actions is None:
            output.logits = self.language_model.lm_head(hidden[:, -logits_to_keep:])
        if labels is not None:
            output.lm_loss = self.lm_loss(hidden, labels)
        if actions is not None:
            output.latent_actions = self.latent_actions(hidden, input_ids)
            output.flow_loss = self.action_expert.loss(
                output.latent_actions, action_pixel_values, actions, state, action_mask, noise, flow_time
            )
        losses = [loss for loss in (output.lm_loss, output.flow_loss) if loss is not None]
        if losses:
            output.loss = sum(losses)
        return output if return_dict else output.to_tuple()

    def check_batch(self, batch: dict[str, torch.Tensor | None]) -> None:
        """Refuse inputs of which a part would be ignored, is missing or has another shape (ValueError)."""
        given = {name for name, value in batch.items() if value is not None}
        if len(given & {"input_ids", "inputs_embeds"}) != 1:
            raise ValueError("Give input_ids or inputs_embeds, and not both.")
        if "inputs_embeds" in given and given & {"pixel_values", "actions"}:
            raise ValueError("inputs_embeds takes no pixel_values or actions; give input_ids with them.")
        config, takes_state = self.config, self.config.state_dim is not None
        vision = config.action_vision_config
        if vision is None and "action_pixel_values" in given:
            raise ValueError(
                "action_pixel_values are for the action expert's vision tower, but this model has none "
                "(action_vision_config is null); leave them out."
            )
        if vision is not None and ("actions" in given) != ("action_pixel_values" in given):
            raise ValueError(
                "actions and action_pixel_values go together: the flow loss needs both. To act, call generate_action; "
                "to chat, give what processor.prompt_inputs or apply_chat_template returns."
            )
        if ("state" in given) != (takes_state and "actions" in given):
            needed = f"with actions it needs one of {config.state_dim} values" if takes_state else "it takes none"
            has = "has" if "state" in given else "lacks"
            raise ValueError(f"This batch {has} a state, but of this model {needed}.")
        rows = tuple(batch["inputs_embeds" if "inputs_embeds" in given else "input_ids"].shape[:2])
        image_size = None if vision is None else vision.image_size
        draws = rows[0] * config.flow_config.training_draws
        shapes = {
            "labels": rows,
            "actions": (rows[0], config.horizon, config.action_dim),
            "action_mask": (rows[0], config.horizon),
            "noise": (draws, config.horizon, config.action_dim),
            "flow_time": (draws,),
            "state": (rows[0], config.state_dim),
            "action_pixel_values": (rows[0], len(config.cameras), 3, image_size, image_size),
        }
        for name in given & shapes.keys():
            if tuple(batch[name].shape) != shapes[name]:
                raise ValueError(f"{name} has shape {tuple(batch[name].shape)}, but it must be {shapes[name]}.")

    def embed_prompt(self, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None) -> torch.Tensor:
        """Token embeddings, image features in the places of the image tokens: (batch, seq, text_hidden_size)."""
        images = 0 if pixel_values is None else len(pixel_values)
        if images == 0 and self.training:
            embeds = self.insert_images(input_ids)
            return embeds + self.blank_image_zero(embeds.device).to(embeds.dtype)
        return self.insert_images(input_ids, self.encode_images(pixel_values) if images else None)

    def insert_images(self, input_ids: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Token embeddings with features, (images, num_image_tokens, text_hidden_size), in the image tokens' places."""
        given, images = int((input_ids == self.config.image_token_id).sum()), 0 if features is None else len(features)
        if given != images * self.config.num_image_tokens:
            raise ValueError(
                f"The text has {given} image tokens, but {images} images make "
                f"{images * self.config.num_image_tokens} ({self.config.num_image_tokens} each)."
            )
        return self.place_images(input_ids, features) if images else self.language_model.embed_tokens(input_ids)

    def place_images(self, input_ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """`insert_images` of texts whose image tokens were counted; it does not wait for the device."""
        embeds = self.language_model.embed_tokens(input_ids)
        places = (input_ids == self.config.image_token_id).unsqueeze(-1)
        return embeds.masked_scatter(places, features.to(embeds.dtype))

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """SigLIP after its final norm, then the projector: (images, num_image_tokens, text_hidden_size)."""
        patches = self.vision_model(pixel_values.to(self.projector.norm.weight.dtype)).last_hidden_state
        return self.projector(patches)

    def blank_image_zero(self, device: torch.device) -> torch.Tensor:
        """A zero that depends on the vision tower, for a training batch without pictures.

        Where parameters are sharded (FSDP), every rank must gather those of the tower in the same step: a rank whose
        texts have no pictures would leave the others waiting for ever.
        """
        size = self.config.vision_config.image_size
        return (0 * self.encode_images(torch.zeros(1, 3, size, size, device=device))).sum()

    def lm_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """L_LM: mean cross-entropy of the next token, with logits only where there is a target; 0 without targets."""
        targets = labels[:, 1:]
        counted = targets != -100
        logits = self.language_model.lm_head(hidden[:, :-1][counted]).float()  # (targets, vocabulary)
        total = nn.functional.cross_entropy(logits, targets[counted], reduction="sum")
        return total / counted.sum().clamp(min=1)

    def latent_actions(self, hidden: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """C: the hidden states at the action queries, (batch, num_action_queries, text_hidden_size) (section 3.1)."""
        queries = self.config.num_action_queries
        first = self.config.query_token_id
        places = (input_ids >= first) & (input_ids < first + queries)
        if not (places.sum(dim=1) == queries).all():
            raise ValueError(
                f"Rows have {places.sum(dim=1).tolist()} action queries, but with actions each row needs {queries}."
            )
        return hidden[places].view(len(hidden), queries, -1)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module):
        self.language_model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module):
        self.language_model.lm_head = new_embeddings

    def enable_input_require_grads(self):
        """Nothing, although gradient checkpointing asks for it: only re-entrant checkpoints need inputs with gradients,
        and the frozen vision tower would get a backward pass of its own from them."""

    def _set_gradient_checkpointing(self, enable: bool = True, gradient_checkpointing_func=checkpoint, **kwargs):
        if enable and getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
            raise ValueError(
                "use_reentrant is True in the gradient checkpointing's settings, but it must be False: re-entrant "
                "checkpoints give frozen embeddings' first layer no gradient."
            )
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, pixel_values=None, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, past_key_values=past_key_values, **kwargs)
        for name in ("tokenizer", "action_pixel_values", "state"):  # of the stopping criteria and of the action expert
            inputs.pop(name, None)
        if past_key_values is None or past_key_values.get_seq_length() == 0:
            inputs["pixel_values"] = pixel_values
        return inputs

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation is {generation_config.cache_implementation!r}, but InstructVLA has its own "
                "dynamic cache; leave the argument out."
            )
        if generation_config.output_hidden_states or generation_config.output_attentions:
            raise ValueError("generate gives no hidden states or attentions; call the model itself for hidden states.")
        suppressed = {*(generation_config.suppress_tokens or []), self.config.image_token_id}
        generation_config.suppress_tokens = sorted(suppressed)  # an answer holds no picture
        if generation_config.use_cache and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = self.language_model.new_cache()

    def _expand_inputs_for_generation(self, *, expand_size=1, input_ids=None, pixel_values=None, **kwargs):
        if expand_size > 1 and pixel_values is not None:
            images = (input_ids == self.config.image_token_id).sum(dim=1) / self.config.num_image_tokens
            if not (images == 1).all():
                raise ValueError(
                    f"Several sequences per prompt need one image in each prompt; they have {images.tolist()}. "
                    "Generate one sequence per prompt, or one prompt at a time."
                )
        kwargs = {"expand_size": expand_size, "input_ids": input_ids, "pixel_values": pixel_values, **kwargs}
        return super()._expand_inputs_for_generation(**kwargs)
