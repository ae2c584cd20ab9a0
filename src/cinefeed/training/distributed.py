"""Several processes that train one network, one a GPU: `torchrun --nproc-per-node 2 -m cinefeed train ...`.

Each rank is fed its share of every global batch and computes its gradients; their mean moves the weights, which so
stay the same everywhere. Rank 0 alone validates, decides and writes. Keras' layers are no torch modules with a forward
pass of their own, so torch's DistributedDataParallel cannot wrap them: the optimiser averages instead.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import keras
import numpy as np

from cinefeed.errors import SettingError
from cinefeed.training.callbacks import Logs

_PATIENCE = timedelta(hours=6)  # the others wait while rank 0 validates; torch's own would be ten minutes


def launched() -> tuple[int, int]:
    """Return the rank and the number of processes that torchrun gave this one: 0 and 1 where it did not start it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def together() -> Iterator[None]:
    """Within it the processes that torchrun started are one group; alone, nothing happens.

    Raises SettingError where Keras is not on torch: other backends know nothing of torchrun's processes.
    """
    if launched()[1] < 2:
        yield
        return
    if keras.config.backend() != "torch":
        raise SettingError(
            f"torchrun starts several processes, which takes Keras on torch, and it is on {keras.config.backend()}; "
            f"set KERAS_BACKEND=torch"
        )
    import torch
    from torch import distributed

    if distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """Return this process' rank and the number of ranks: 0 and 1 where it is alone."""
    group = _group()
    return (0, 1) if group is None else (group.get_rank(), group.get_world_size())


def wait_for_all() -> None:
    """Return when every rank has come here."""
    group = _group()
    if group is not None:
        group.barrier()


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any rank, the same everywhere."""
    group = _group()
    if group is None:
        return flag
    import torch

    found = torch.tensor(int(flag))
    group.all_reduce(found, op=group.ReduceOp.MAX)
    return bool(found)


def join(model: keras.Model) -> None:
    """Give every rank the weights of rank 0, and let the optimiser of a compiled model average gradients."""
    group = _group()
    if group is None:
        return
    _from_first(model.variables)
    apply = model.optimizer.apply

    def apply_mean(grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        return apply(_mean(grads, trainable_variables or model.trainable_variables), trainable_variables)

    model.optimizer.apply = apply_mean


class MeanLogs(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Make of each rank's training figures their mean, the same on all; it comes first in `fit(callbacks=[...])`."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Average what Keras measured."""
        group = _group()
        if group is None or not logs:
            return
        import torch

        names = sorted(logs)
        values = torch.tensor([float(logs[name]) for name in names], dtype=torch.float64)
        group.all_reduce(values)
        logs.update(zip(names, (values / group.get_world_size()).tolist(), strict=True))


class FollowRankZero(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Let all ranks stop where one does, and take over the learning rate and running means of rank 0.

    It comes after all that decides, and before the checkpoint.
    """

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Stop where any rank stops, such as for a NaN: the others would wait for it for ever."""
        self.model.stop_training = any_rank(bool(self.model.stop_training))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Take over what rank 0 decided."""
        if _group() is None:
            return
        self.model.stop_training = any_rank(bool(self.model.stop_training))
        _from_first([*self.model.non_trainable_variables, *self.model.optimizer.variables])


def _group() -> Any:
    """Return torch.distributed where it is set up; torch is not imported for that."""
    import sys

    found = getattr(sys.modules.get("torch"), "distributed", None)
    return found if found is not None and found.is_available() and found.is_initialized() else None


def _from_first(variables: Sequence[Any]) -> None:
    group = _group()
    for variable in variables:
        group.broadcast(variable.value.data, src=0)


def _mean(grads: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Return the mean of all ranks' gradients: one message for all of them, of which small ones would be many."""
    import torch

    group = _group()
    filled = [torch.zeros_like(each.value) if one is None else one for one, each in zip(grads, variables, strict=True)]
    flat = torch.cat([each.reshape(-1).to(torch.float32) for each in filled])
    group.all_reduce(flat)
    flat /= group.get_world_size()
    sizes = np.cumsum([each.numel() for each in filled])[:-1].tolist()
    parts = torch.tensor_split(flat, sizes)
    return [part.reshape(each.shape).to(each.dtype) for part, each in zip(parts, filled, strict=True)]
