"""Which weights results follow from: a checksum that tells a re-trained checkpoint from the old one."""

import hashlib

import torch


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Checksum of all parameters and buffers with their names, 16 hexadecimal digits; the device doesn't count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
