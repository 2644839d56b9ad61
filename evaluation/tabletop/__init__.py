"""The embedded world: a tabletop simulator that runs anywhere, its expert, its data and its benchmark.

Where Gymnasium is installed, importing this registers "instructvla/Tabletop-v0";
`gymnasium.make("instructvla.evaluation.tabletop:instructvla/Tabletop-v0")` does both.
"""

from importlib.util import find_spec

ENVIRONMENT = "instructvla/Tabletop-v0"

if find_spec("gymnasium") is not None:
    import gymnasium

    if ENVIRONMENT not in gymnasium.registry:
        # The environment truncates by itself, and its own checks are tested; Gymnasium's would only cost time.
        gymnasium.register(
            ENVIRONMENT, "instructvla.evaluation.tabletop.world:Tabletop", disable_env_checker=True, order_enforce=False
        )
