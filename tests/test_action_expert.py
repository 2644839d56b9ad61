"""The action expert against the authors' numbers, and its prefix cache against recomputation."""

import pytest
import torch

from instructvla import InstructVLAConfig
from instructvla.action_expert import ActionExpert, block_causal
from instructvla.configuration_instructvla import nano_text_config
from tests.parity import action_weights, load_fixture, relative_error

TOLERANCE = 1e-4  # float32, as the golden tensors' README asks
MASKS = {"additive_bias": "eager_bool", "block_causal": "masked"}
FIXTURES = ["action_expert_nostate", "action_expert_state"]


def golden_expert(name: str, mask: str, attention: str) -> tuple[ActionExpert, dict[str, torch.Tensor]]:
    tensors, meta = load_fixture(name)
    sizes = meta["config"]
    llama, vit = sizes["llama"], sizes["vit"]
    config = InstructVLAConfig.nano(
        text_config=nano_text_config(
            hidden_size=sizes["token_size"], num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=1
        ),
        action_vision_config={
            "embed_dim": vit["dim"],
            "depth": vit["depth"],
            "num_heads": vit["heads"],
            "image_size": vit["img"],
            "feature_layer": 2,
        },
        action_expert_config={
            "hidden_size": llama["hidden_size"],
            "intermediate_size": llama["intermediate_size"],
            "num_hidden_layers": llama["num_hidden_layers"],
            "num_attention_heads": llama["num_attention_heads"],
            "attention": mask,
        },
        num_action_queries=sizes["num_queries"],
        horizon=sizes["horizon"],
        state_dim=sizes["state_dim"],
        attn_implementation=attention,
    )
    expert = ActionExpert(config).eval()
    expert.load_state_dict(action_weights(tensors, unused=r"vision\.(norm|blocks\.3)\."), strict=True)
    return expert, tensors


def golden_inputs(tensors: dict[str, torch.Tensor], cameras: int) -> dict[str, torch.Tensor | None]:
    inputs = {key.removeprefix(f"img{cameras}.in."): value for key, value in tensors.items()}
    return {
        "latent_action": inputs["latent"].clone().requires_grad_(),
        "pixel_values": inputs["pixel_values"].unflatten(0, (2, cameras)),
        "actions": inputs["actions"],
        "state": inputs.get("proprios"),
        "noise": inputs["x0"],
        "flow_time": inputs["t"],
    }


@pytest.fixture(params=["eager", "sdpa"])
def attention(request):
    return request.param


@pytest.mark.parametrize("cameras", [1, 2])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", FIXTURES)
def test_flow_loss_and_gradients_equal_the_authors(name, mask, cameras, attention):
    expert, tensors = golden_expert(name, mask, attention)
    inputs = golden_inputs(tensors, cameras)
    loss = expert.loss(**inputs)
    loss.backward()
    actual = {
        "loss": loss,
        "grad_latent": inputs["latent_action"].grad,
        "grad_action_embed_linear_1_weight": expert.action_embedding.linear_1.weight.grad,
        "grad_film_block2_scale_weight": expert.vision.blocks[2].film_scale.weight.grad,
    }
    for key, value in actual.items():
        assert relative_error(value, tensors[f"img{cameras}.{MASKS[mask]}.out.{key}"]) < TOLERANCE, key


@pytest.mark.parametrize("cameras", [1, 2])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", FIXTURES)
@torch.no_grad()
def test_every_euler_step_equals_the_authors(name, mask, cameras, attention):
    expert, tensors = golden_expert(name, mask, attention)
    inputs = golden_inputs(tensors, cameras)
    golden = {key.removeprefix(f"img{cameras}.{MASKS[mask]}.sample."): value for key, value in tensors.items()}
    steps = []
    velocity = expert.velocity
    expert.velocity = lambda *args, **kwargs: steps.append((args, velocity(*args, **kwargs))) or steps[-1][1]
    state = None if inputs["state"] is None else inputs["state"][:1]
    noise = tensors[f"img{cameras}.sample.in.noise"]
    actions = expert.sample(inputs["latent_action"][:1], inputs["pixel_values"][:1], noise, state)

    assert relative_error(actions, golden["out.actions"]) < TOLERANCE
    assert len(steps) == len(golden["t"]) == 10
    times = expert.flow_steps().times
    for i, ((noisy_actions, time, *_), step_velocity) in enumerate(steps):
        torch.testing.assert_close(times[i : i + 1], golden["t"][i], rtol=0, atol=1e-6)
        torch.testing.assert_close(time, expert.action_embedding.embed_time(golden["t"][i]), rtol=0, atol=1e-6)
        tokens = expert.action_embedding(noisy_actions, time)
        assert relative_error(noisy_actions, golden["actions_before_step"][i]) < TOLERANCE
        assert relative_error(tokens, golden["action_tokens"][i]) < TOLERANCE
        assert relative_error(step_velocity.flatten(1), golden["velocity"][i]) < TOLERANCE


@torch.no_grad()
def test_prefix_cache_does_not_change_the_actions_and_sends_only_action_tokens(attention):
    expert, tensors = golden_expert("action_expert_state", "block_causal", attention)
    inputs = golden_inputs(tensors, 2)
    lengths = []
    expert.transformer.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    arguments = (inputs["latent_action"], inputs["pixel_values"], torch.randn(2, 16, 7), inputs["state"])
    cached = expert.sample(*arguments)
    prefix_length = 2 * 16 + 8 + 1
    assert lengths == [prefix_length] + 10 * [16]

    velocity = expert.velocity
    prefix = expert.embed_prefix(arguments[0], arguments[1], arguments[3])
    mask = expert.attention_mask(prefix)
    expert.encode_prefix = lambda *args, read: None
    expert.velocity = lambda x, tau, rotary, cache: velocity(x, tau, rotary, mask, prefix)
    torch.testing.assert_close(expert.sample(*arguments), cached, rtol=1e-5, atol=1e-5)  # other matrix shapes


@torch.no_grad()
def test_additive_bias_blocks_nothing_and_uses_no_prefix_cache(attention):
    expert, tensors = golden_expert("action_expert_nostate", "additive_bias", attention)
    inputs = golden_inputs(tensors, 1)
    prefix = expert.embed_prefix(inputs["latent_action"], inputs["pixel_values"], None)
    assert sorted(expert.attention_mask(prefix).unique().tolist()) == [0.0, 1.0]
    expert.encode_prefix = None  # would fail if called
    assert expert.sample(inputs["latent_action"], inputs["pixel_values"], torch.randn(2, 16, 7)).shape == (2, 16, 7)


@torch.no_grad()
def test_batch_rows_do_not_see_each_other():
    expert, tensors = golden_expert("action_expert_state", "block_causal", "sdpa")
    inputs = golden_inputs(tensors, 2)
    noise = torch.randn(2, 16, 7)
    both = expert.sample(inputs["latent_action"], inputs["pixel_values"], noise, inputs["state"])
    for row in range(2):
        one = slice(row, row + 1)
        alone = expert.sample(
            inputs["latent_action"][one], inputs["pixel_values"][one], noise[one], inputs["state"][one]
        )
        torch.testing.assert_close(both[one], alone, rtol=1e-5, atol=1e-5)


def test_block_causal_mask_is_the_papers():
    mask = block_causal(visual=2, condition=2, horizon=1, device=torch.device("cpu"))
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_head_has_the_sizes_of_the_released_one():
    with torch.device("meta"):
        expert = ActionExpert(InstructVLAConfig.instructvla_2b())
    shapes = [tuple(layer.weight.shape) for layer in expert.action_head if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(3072, 12288), (1536, 3072), (384, 1536), (112, 384)]


@pytest.mark.parametrize("mask", MASKS)
def test_several_draws_cost_one_prefix_and_give_the_mean_of_their_losses(mask):
    """The loss of three draws per chunk is the mean of three losses, gradients included (float32 rounding)."""
    expert, tensors = golden_expert("action_expert_state", mask, "sdpa")
    inputs = golden_inputs(tensors, 1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, *inputs["noise"].shape[1:], generator=generator)
    flow_time = torch.rand(2, 3, generator=generator)
    apart = [expert.loss(**inputs | {"noise": noise[:, i], "flow_time": flow_time[:, i]}) for i in range(3)]
    (expected,) = torch.autograd.grad(torch.stack(apart).mean(), inputs["latent_action"])
    expert.flow.training_draws = 3
    together = expert.loss(**inputs | {"noise": noise.flatten(0, 1), "flow_time": flow_time.flatten()})
    (gradient,) = torch.autograd.grad(together, inputs["latent_action"])
    torch.testing.assert_close(together, torch.stack(apart).mean())
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
