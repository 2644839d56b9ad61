"""What PyTorch dispatches while a block runs: operations that start a kernel, and bytes of tensors that are alive."""

import weakref
from collections import Counter

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

METADATA = {"aten::_unsafe_view", "aten::empty", "prim::device"}  # beside views: nothing is computed


class FusedAttention(TorchFunctionMode):
    """Attention as one operation with nothing but its result, as on a GPU: shapes alone would run it step by step."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, _, value = args[:3]
        return query.new_zeros(*query.shape[:-1], value.shape[-1])


class KernelCounter(TorchDispatchMode):
    """Counts operations that compute or copy something: on a GPU, each starts at least one kernel."""

    def __init__(self):
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not is_view(func) and func._schema.name not in METADATA:
            self.found[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def is_view(func: torch._ops.OpOverload) -> bool:
    """Whether the result is the input in another shape: it aliases it and writes nothing."""
    aliases = [value.alias_info for value in func._schema.returns if value.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases)


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made in the block, shapes alone or real, hold at once; a kernel's own space is not
    counted."""

    def __init__(self):
        super().__init__()
        self.live, self.peak = 0, 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {id(tensor.untyped_storage()) for tensor in tensors_in((args, kwargs))}
        output = func(*args, **(kwargs or {}))
        for tensor in tensors_in(output):
            storage = tensor.untyped_storage()
            if id(storage) not in self.known and id(storage) not in before:
                self.add(storage)
        return output

    def add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def forget(_: weakref.ref) -> None:
            self.live -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def tensors_in(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
