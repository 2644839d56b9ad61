"""A tiny untrained model that drives the tabletop's arm, and trials for it."""

from functools import cache

import numpy as np

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.evaluation.tabletop.expert_episodes import DATASET
from instructvla.evaluation.tabletop.instruct import instruct_task, trial
from instructvla.evaluation.tabletop.policies import Decision, ExpertPolicy
from instructvla.evaluation.tabletop.rollout import Assignment
from instructvla.nano import nano_processor, random_model

APPLE = "atomic/pick-up-the-apple"
THIRSTY = "negation/i-am-very-thirsty-please-no-soda"
CLOSE = "atomic/close-the-drawer"
SIZES = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    },
    "text_config": {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 2048,
        "max_position_embeddings": 512,
        "bos_token_id": 2026,
        "eos_token_id": 2028,
        "pad_token_id": 2026,
        "tie_word_embeddings": False,
    },
    "action_vision_config": {
        "embed_dim": 32,
        "depth": 2,
        "feature_layer": 1,
        "num_heads": 2,
        "image_size": 32,
        "patch_size": 16,
        "num_register_tokens": 1,
    },
    "action_expert_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "adapter_config": {"rank": 4, "alpha": 8, "scale_head_size": 16},
    "num_action_queries": 4,
    "horizon": 8,
}
LIMIT = [0.05] * 3 + [0.25] * 3
STATISTICS = {
    "action": {"q01": [-one for one in LIMIT] + [0.0], "q99": [*LIMIT, 1.0], "mask": [True] * 6 + [False]},
    "state": {"q01": [-1.0] * 8, "q99": [1.0] * 8},
}


def tabletop_model(**fields):
    """Its words and motions mean nothing."""
    config = InstructVLAConfig.nano(**(SIZES | {"state_dim": 8, "cameras": ["front"]} | fields))
    model = random_model(config, seed=0).eval()
    statistics = {DATASET: STATISTICS if config.state_dim else {"action": STATISTICS["action"]}}
    model.processor = nano_processor(config, statistics=statistics, control_rate_hz={DATASET: 5.0})
    return model


@cache
def shared_model():
    """For tests that don't change it."""
    return tabletop_model()


def assignments(*names: str, count: int = 1) -> list[Assignment]:
    """The first trials of tasks."""
    return [Assignment(name, i, trial(instruct_task(name), i)) for name in names for i in range(count)]


class TalkingExpert(ExpertPolicy):
    """The expert, saying what it does as a model would."""

    def _decision(self, moment) -> Decision:
        decision = super()._decision(moment)
        return Decision(decision.actions, f"I will {moment.world.task.instruction()}.", decision.memory)


class Recorder:
    """Takes a policy's place: moves forward for some steps, and keeps what it was shown."""

    cameras, image_size, settings = ("front",), 32, {"policy": "recorder"}

    def __init__(self, steps: int = 4):
        self.steps, self.batches = steps, []

    def act(self, moments):
        self.batches.append(list(moments))
        forward = np.array([[0.01, 0, 0, 0, 0, 0, 1.0]] * self.steps)
        return [Decision(forward, f"decision {one.number}", memory=one.number) for one in moments]
