"""The stages of an action one by one, for what is counted in them."""

from collections.abc import Callable

import torch

PROMPT = 297  # tokens of a usual instruction with its image

Measure = Callable[[Callable[[], object]], int]


def stages(model, prompt: int, words: int | None, session, measure: Measure) -> dict[str, int]:
    """What is measured of each stage as it is computed, on inputs without meaning."""
    config, device = model.config, model.device
    as_model = {"device": device, "dtype": model.dtype}
    size, queries = config.text_config.hidden_size, config.num_action_queries
    images = torch.zeros(1, 3, *[config.vision_config.image_size] * 2, device=device)

    def append(tokens: int, last: int):
        ones = torch.ones(1, tokens, dtype=torch.long, device=device)
        return session.append(torch.zeros(1, tokens, size, **as_model), ones, last)

    found = {"images": measure(lambda: model.encode_images(images))}
    if words is None:
        found["prompt and queries"] = measure(lambda: append(prompt + queries, queries))
    else:
        choose = model.next_tokens
        found["prompt"] = measure(lambda: append(prompt, 1))
        found["words"] = measure(lambda: [choose(append(1, 1)[:, -1]) for _ in range(words)])
        found["words"] += measure(lambda: choose(torch.zeros(1, size, **as_model)))
        found["queries"] = measure(lambda: append(queries + 1, queries))
    latent = torch.zeros(1, queries, size, **as_model)
    side = config.action_vision_config.image_size
    seen = torch.zeros(1, len(config.cameras), 3, side, side, device=device)
    state = None if config.state_dim is None else torch.zeros(1, config.state_dim, device=device)
    noise = torch.zeros(1, config.horizon, config.action_dim, device=device)
    steps = model.action_expert.flow_steps()
    found["action expert"] = measure(lambda: model.action_expert.sample(latent, seen, noise, state, steps))
    return found
