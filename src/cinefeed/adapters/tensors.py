"""NumPy arrays as PyTorch tensors."""

from collections.abc import Mapping
from typing import Any


def as_tensor(array: Any) -> Any:
    """Return an array as a tensor that shares its memory; a mapping of arrays becomes a mapping of tensors.

    uint16, for which torch has few operations, becomes int32 (a copy).

    >>> import numpy as np
    >>> as_tensor(np.zeros(3, np.uint8)).dtype
    torch.uint8
    """
    import torch  # an extra; NumPy batches need none

    if isinstance(array, Mapping):
        return {name: as_tensor(each) for name, each in array.items()}
    if array.dtype.name == "uint16":
        array = array.astype("int32")
    if array.dtype.name == "bfloat16":  # not a dtype of NumPy itself
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)
