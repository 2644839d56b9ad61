"""Which weights results follow from: a checksum that tells a re-trained checkpoint from the old one."""

import hashlib

import torch

from instructvla.weight_precision import stored_tensors


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Checksum of all parameters and buffers with their names, 16 hexadecimal digits; the device doesn't count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        for stored in stored_tensors(tensor.detach()):
            digest.update(stored.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
