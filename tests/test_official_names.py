"""Claims about the published names: what each becomes, and by which rule it is dropped."""

import pytest

from instructvla.official_names import UNREACHABLE_BLOCKS, account_for, our_name

VISION = "action_model.film_vision_model.vision_model"


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("vision_model.vision_model.post_layernorm.bias", "vision_model.post_layernorm.bias"),
        ("mlp1.1.weight", "projector.linear_1.weight"),
        ("language_model.model.embed_tokens.weight", "language_model.embed_tokens.weight"),
        ("language_model.lm_head.weight", "language_model.lm_head.weight"),
        ("language_model.base_model.model.lm_head.weight", "language_model.lm_head.weight"),
        ("language_model.base_model.lora_model.model.lm_head.weight", "language_model.lm_head.weight"),
        (
            "language_model.base_model.model.model.layers.7.self_attn.q_proj.base_layer.bias",
            "language_model.layers.7.self_attn.q_proj.bias",
        ),
        (
            "language_model.base_model.lora_model.model.model.layers.7.mlp.up_proj.lora_A.1.weight",
            "language_model.layers.7.mlp.up_proj.lora_A.1.weight",
        ),
        ("language_model.base_model.internal_xlora_classifier.layers.9.bias", "language_model.scale_head.9.bias"),
        (f"{VISION}.blocks.2.block.ls1.gamma", "action_expert.vision.blocks.2.ls1.gamma"),
        (f"{VISION}.blocks.2.scale.weight", "action_expert.vision.blocks.2.film_scale.weight"),
        (f"{VISION}.blocks.2.shift.bias", "action_expert.vision.blocks.2.film_shift.bias"),
        ("action_model.cog_projector.0.weight", "action_expert.latent_projector.0.weight"),
        ("action_model.state_embed.2.bias", "action_expert.state_projector.2.bias"),
        ("action_model.action_embed.linear_3.weight", "action_expert.action_embedding.linear_3.weight"),
        ("action_model.VideoGPT.model.norm.weight", "action_expert.transformer.norm.weight"),
    ],
)
def test_a_published_name_becomes_ours(official, ours):
    assert our_name(official) == ours


def test_the_experts_of_a_layer_stand_in_order_whatever_the_order_of_the_file():
    layer = "language_model.base_model.lora_model.model.model.layers.0.mlp.up_proj"
    account = account_for([f"{layer}.lora_B.1.weight", f"{layer}.lora_B.0.weight"], feature_layer=2)
    ours = "language_model.layers.0.mlp.up_proj.lora_B"
    assert account.used == {ours: [f"{layer}.lora_B.0.weight", f"{layer}.lora_B.1.weight"]}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("vision_model.vision_model.head.probe", "pooling head"),
        ("language_model.model.rotary_emb.inv_freq", "rotary"),
        ("action_model.VideoGPT.model.layers.3.self_attn.rotary_emb.inv_freq", "rotary"),
        ("vision_model.vision_model.embeddings.position_ids", "position numbers"),
        (f"{VISION}.norm.bias", "final norm"),
        (f"{VISION}.blocks.3.block.attn.qkv.bias", UNREACHABLE_BLOCKS),
        ("action_model.future_queries", "future_queries"),
    ],
)
def test_what_has_no_place_is_dropped_by_a_named_rule(name, rule):
    account = account_for([name], feature_layer=2)
    assert account.used == {}
    ((found, names),) = account.dropped.items()
    assert found.startswith(rule) and names == [name]


def test_the_blocks_up_to_feature_layer_are_kept():
    blocks = [f"{VISION}.blocks.{index}.scale.bias" for index in range(24)]
    account = account_for(blocks, feature_layer=22)
    assert len(account.used) == 23 and account.dropped == {UNREACHABLE_BLOCKS: blocks[23:]}


@pytest.mark.parametrize(
    "name",
    [
        "action_model.mystery.weight",
        "language_model.base_model.model.model.layers.0.mlp.up_proj.lora_A.other.weight",
        "vision_model.other.weight",
        "mlp1.2.weight",
    ],
)
def test_an_unknown_name_is_an_error_that_names_it(name):
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        account_for(["mlp1.0.bias", name], feature_layer=2)


@pytest.mark.parametrize(
    "names",
    [
        ["language_model.lm_head.weight", "language_model.base_model.model.lm_head.weight"],
        [
            "language_model.base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight",
            "language_model.base_model.model.model.layers.0.mlp.up_proj.lora_A.0.weight",
        ],
    ],
)
def test_two_tensors_for_one_place_are_refused(names):
    with pytest.raises(ValueError, match="one place"):
        account_for(names, feature_layer=2)
