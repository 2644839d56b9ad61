"""One thread for tiny models: more only wait for each other, and results stay the same on every machine."""

import torch

torch.set_num_threads(1)
