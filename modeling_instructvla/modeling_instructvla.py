"""InstructVLA: one network that answers in words and drives a robot (paper section 3.1, arXiv 2507.17520)."""

import os
import tempfile
from dataclasses import dataclass

import torch
from huggingface_hub import HfApi
from timm.layers import LayerScale
from torch import nn
from transformers import AutoProcessor, DynamicCache, GenerationMixin, PreTrainedModel, SiglipVisionModel
from transformers import initialization as init
from transformers.utils import ModelOutput, cached_file, extract_commit_hash, logging

from .action_expert import ActionExpert
from .configuration_instructvla import AUTO_MAP, InstructVLAConfig
from .film_vision import FiLMLinear, FiLMVisionTransformer
from .generation_instructvla import ActionGenerationMixin
from .mixture_language_model import MixtureLanguageModel
from .vision_projector import VisionProjector

try:  # the card's template is part of the installed package, not of a checkpoint
    from instructvla.model_card import write_model_card
except ImportError:
    write_model_card = None

logger = logging.get_logger(__name__)

CPU_ALIGNMENT = 64  # bytes, of torch's own allocations
HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")


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


class InstructVLAForConditionalGeneration(ActionGenerationMixin, PreTrainedModel, GenerationMixin):
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
        self._processor = None
        self._processor_source: tuple[str, dict] | None = None
        self.post_init()
        self.generation_config.suppress_tokens = [config.image_token_id]  # an answer holds no picture
        self.eval()

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, FiLMLinear):
            init.zeros_(module.weight)
        elif isinstance(module, LayerScale):
            init.constant_(module.gamma, 1e-5)
        elif isinstance(module, FiLMVisionTransformer):
            for embedding in (module.cls_token, module.reg_token, module.pos_embed):
                init.normal_(embedding, std=0.02)

    # Forward

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
        return_dict: bool = True,
    ) -> InstructVLAOutput:
        """L = L_LM + L_FM for a training batch, logits for a plain one.

        Args:
            input_ids: (batch, seq), with the image tokens of `pixel_values` and, for actions, all queries in each row.
            attention_mask: (batch, cached + seq), 1 where a token counts; default: everywhere.
            pixel_values: (images, 3, image_size, image_size), the images of all rows one after the other.
            labels: (batch, seq), −100 where the token is no target; vocabulary logits are computed for targets alone.
            actions: normalised action chunks, (batch, horizon, action_dim).
            action_pixel_values: (batch, cameras, 3, image_size, image_size), for the action expert.
            state: normalised, (batch, state_dim).
            action_mask: (batch, horizon), False where the chunk is padding.
            noise, flow_time: ε and τ of the flow loss, drawn when not given.
            logits_to_keep: how many last positions get logits; 0 means all.
        """
        self.check_batch(input_ids, inputs_embeds, pixel_values, actions, action_pixel_values, state)
        if inputs_embeds is None:
            inputs_embeds = self.embed_prompt(input_ids, pixel_values)
        cache = past_key_values
        if use_cache and cache is None:
            cache = self.language_model.new_cache()
        cached = 0 if cache is None else cache.get_seq_length()
        self.check_length(cached + inputs_embeds.shape[1])
        if attention_mask is None:
            attention_mask = inputs_embeds.new_ones(len(inputs_embeds), cached + inputs_embeds.shape[1]).long()
        hidden = self.language_model(inputs_embeds, attention_mask, cache, position_ids)

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

    def check_batch(self, input_ids, inputs_embeds, pixel_values, actions, action_pixel_values, state) -> None:
        """Refuse combinations of inputs of which a part would be ignored or is missing (ValueError)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give input_ids or inputs_embeds, and not both.")
        if inputs_embeds is not None and (pixel_values is not None or actions is not None):
            raise ValueError(
                "inputs_embeds takes no pixel_values or actions; give input_ids, or embed_prompt's result alone."
            )
        if (actions is None) != (action_pixel_values is None):
            raise ValueError("actions and action_pixel_values go together: the flow loss needs both.")
        takes_state = self.config.state_dim is not None
        if (state is not None) != (takes_state and actions is not None):
            needed = f"with actions it needs one of {self.config.state_dim} values" if takes_state else "it takes none"
            raise ValueError(f"This batch {'lacks' if state is None else 'has'} a state, but of this model {needed}.")

    def embed_prompt(self, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None) -> torch.Tensor:
        """Token embeddings, image features in the places of the image tokens: (batch, seq, text_hidden_size)."""
        embeds = self.language_model.embed_tokens(input_ids)
        places = input_ids == self.config.image_token_id
        images = 0 if pixel_values is None else len(pixel_values)
        if places.sum() != images * self.config.num_image_tokens:
            raise ValueError(
                f"The text has {int(places.sum())} image tokens, but {images} images make "
                f"{images * self.config.num_image_tokens} ({self.config.num_image_tokens} each)."
            )
        if images == 0:
            return embeds
        return embeds.masked_scatter(places.unsqueeze(-1), self.encode_images(pixel_values).to(embeds.dtype))

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """SigLIP after its final norm, then the projector: (images, num_image_tokens, text_hidden_size)."""
        patches = self.vision_model(pixel_values.to(self.projector.norm.weight.dtype)).last_hidden_state
        return self.projector(patches)

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

    # Plain generation (GenerationMixin)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module):
        self.language_model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module):
        self.language_model.lm_head = new_embeddings

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, pixel_values=None, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, past_key_values=past_key_values, **kwargs)
        if past_key_values is None or past_key_values.get_seq_length() == 0:
            inputs["pixel_values"] = pixel_values
        return inputs

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation is {generation_config.cache_implementation!r}, but InstructVLA has its own "
                "dynamic cache; leave the argument out."
            )
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

    # Loading and saving

    @property
    def processor(self):
        """The processor saved beside the weights, loaded at first use from the same revision; assignable.

        Raises:
            ValueError: if the model was not loaded from a checkpoint, or the checkpoint has no processor.
        """
        if self._processor is None:
            if self._processor_source is None:
                raise ValueError("This model was not loaded from a checkpoint; assign model.processor first.")
            name, hub_arguments = self._processor_source
            found = cached_file(
                name, "processor_config.json", _raise_exceptions_for_missing_entries=False, **hub_arguments
            )
            if found is None:
                raise ValueError(
                    f"{name!r} has no processor_config.json: without a processor the model can't read images or scale "
                    "actions. Assign model.processor, and save the model again to keep it."
                )
            is_remote = type(self).__module__.startswith("transformers_modules.")
            self.processor = AutoProcessor.from_pretrained(name, trust_remote_code=is_remote, **hub_arguments)
        return self._processor

    @processor.setter
    def processor(self, processor):
        config = self.config
        expected = {
            "image_token_id": config.image_token_id,
            "num_image_tokens": config.num_image_tokens,
            "image_size": config.vision_config.image_size,
            "action_image_size": config.action_vision_config.image_size,
            "query_token_ids": list(range(config.query_token_id, config.query_token_id + config.num_action_queries)),
            "end_of_turn_id": config.end_of_turn_ids[0],
            "action_dim": config.action_dim,
            "state_dim": config.state_dim,
            "cameras": config.cameras,
        }
        for name, value in expected.items():
            if getattr(processor, name) != value:
                raise ValueError(f"The processor's {name} is {getattr(processor, name)}, but the model needs {value}.")
        self._processor = processor

    def processor_or_none(self):
        """The processor, or None for a model that was made without one and not loaded from a checkpoint."""
        return None if self._processor is None and self._processor_source is None else self.processor

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, output_loading_info=False, **kwargs):
        """As in transformers, but strict: a missing, unexpected or mis-sized tensor is a `ValueError` with its name."""
        if kwargs.pop("ignore_mismatched_sizes", False):
            raise ValueError("ignore_mismatched_sizes=True would leave weights random; convert the checkpoint instead.")
        source = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        model, info = super().from_pretrained(
            pretrained_model_name_or_path,
            *model_args,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )
        mismatched = [
            f"{key}: {tuple(saved)} saved, {tuple(own)} expected" for key, saved, own in info["mismatched_keys"]
        ]
        problems = {
            "missing": info["missing_keys"],
            "unexpected": info["unexpected_keys"],
            "of another size": mismatched,
        }
        report = [f"{kind}: {', '.join(sorted(names))}" for kind, names in problems.items() if names]
        if report:
            raise ValueError(
                f"The weights of {pretrained_model_name_or_path!r} do not fit its configuration. Tensors "
                + "; ".join(report)
            )
        for parameter in model.parameters():  # mapped files are unaligned, and CPU kernels then round differently
            if parameter.device.type == "cpu" and parameter.data_ptr() % CPU_ALIGNMENT:
                parameter.data = parameter.data.clone()
        if pretrained_model_name_or_path is not None:
            model._processor_source = pinned_source(os.fspath(pretrained_model_name_or_path), source)
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self, save_directory, is_main_process: bool = True, max_shard_size="5GB", push_to_hub: bool = False, **kwargs
    ):
        """Write weights, configuration, processor and remote code into one folder, with a model card where our package
        is installed.

        Raises:
            ValueError: if the processor has no statistics, or for `push_to_hub=True`; nothing is written then.
        """
        if push_to_hub:
            raise ValueError("save_pretrained writes a folder; call model.push_to_hub(repo_id) to publish it whole.")
        self.config.auto_map = dict(AUTO_MAP)
        if is_main_process:
            processor = self.processor_or_none()
            if processor is None:
                logger.warning("Saving a model without a processor: it can't act until model.processor is assigned.")
            else:
                processor.save_pretrained(save_directory)
            if write_model_card is not None:
                write_model_card(self, save_directory)
        super().save_pretrained(
            save_directory, is_main_process=is_main_process, max_shard_size=max_shard_size, **kwargs
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload InstructVLA",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size="5GB",
        evaluation: dict[str, str] | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes; `evaluation` (benchmark → result) goes into the model card.

        Returns:
            The address of the commit.

        Raises:
            ValueError: where our package, and with it the card's template, is not installed.
        """
        if write_model_card is None:
            raise ValueError("Publishing needs the model card's template; install the instructvla package.")
        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            write_model_card(self, folder, repo_id, evaluation)
            if revision is not None and not revision.startswith("refs/"):
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
        return commit.commit_url


def pinned_source(name: str, hub_arguments: dict) -> tuple[str, dict]:
    """Where a checkpoint's other files are: its folder by absolute path, or its repository at the loaded commit."""
    if os.path.isdir(name):
        return os.path.abspath(name), hub_arguments
    commit = extract_commit_hash(cached_file(name, "config.json", **hub_arguments), None)
    return name, hub_arguments | ({} if commit is None else {"revision": commit})
