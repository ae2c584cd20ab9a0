"""Data-parallel training by several processes, one per GPU: `torchrun --nproc-per-node 2 -m cinefeed train ...`.

Each rank reads its shard of every global batch and computes gradients; all ranks apply their mean, so the weights stay
the same on all ranks. Each rank scores some of the rows of an evaluation (ranks.py); only rank 0 measures, decides and
writes. Torch's DistributedDataParallel cannot wrap layers of
Keras, which have no torch forward pass of their own: the optimiser averages the gradients instead.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np

from cinefeed.core.errors import SettingError
from cinefeed.training.keras_module import Logs, keras

_TIMEOUT = timedelta(hours=6)  # the other ranks wait while rank 0 validates; torch's default is ten minutes


def torchrun_rank() -> tuple[int, int]:
    """Return the rank and the number of ranks from torchrun's environment variables; (0, 1) without torchrun."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group() -> Iterator[None]:
    """Set up a process group of the processes that torchrun started; without torchrun, do nothing.

    Raises SettingError if the backend of Keras is not torch: other backends do not support torchrun.
    """
    if torchrun_rank()[1] < 2:
        yield
        return
    if keras.config.backend() != "torch":
        raise SettingError(
            f"training by torchrun's processes needs Keras on torch, and Keras is on {keras.config.backend()}; "
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
    distributed.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks; (0, 1) without a process group."""
    group = _group()
    return (0, 1) if group is None else (group.get_rank(), group.get_world_size())


def wait_for_all() -> None:
    """Block until every rank has called this function."""
    group = _group()
    if group is not None:
        group.barrier()


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on at least one rank; all ranks get the same answer."""
    group = _group()
    if group is None:
        return flag
    import torch

    maximum = torch.tensor(int(flag))
    group.all_reduce(maximum, op=group.ReduceOp.MAX)
    return bool(maximum)


def share_gradients(model: keras.Model) -> None:
    """Copy the weights of rank 0 to every rank, and make the optimiser of a compiled model average gradients."""
    group = _group()
    if group is None:
        return
    _copy_from_rank_zero(model.variables)
    apply = model.optimizer.apply

    def apply_mean(grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        return apply(_mean(grads, trainable_variables or model.trainable_variables), trainable_variables)

    model.optimizer.apply = apply_mean


class MeanLogs(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Replace each rank's training metrics by their mean over ranks; it comes first in `fit(callbacks=[...])`."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Average the logs of Keras over ranks."""
        group = _group()
        if group is None or not logs:
            return
        import torch

        names = sorted(logs)
        values = torch.tensor([float(logs[name]) for name in names], dtype=torch.float64)
        group.all_reduce(values)
        logs.update(zip(names, (values / group.get_world_size()).tolist(), strict=True))


class FollowRankZero(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Stop all ranks if one stops, and copy the learning rate and running means of rank 0 to all ranks.

    It comes after all callbacks that stop training or change the learning rate, and before the checkpoint.
    """

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Stop if any rank stops, such as for a NaN: the other ranks would wait for it forever."""
        self.model.stop_training = any_rank(bool(self.model.stop_training))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Copy the decisions of rank 0."""
        if _group() is None:
            return
        self.model.stop_training = any_rank(bool(self.model.stop_training))
        _copy_from_rank_zero([*self.model.non_trainable_variables, *self.model.optimizer.variables])


def copy_running_means(model: keras.Model) -> None:
    """Copy the running means of rank 0, of batch norm, to all ranks, so that all compute the same scores."""
    if _group() is not None:
        _copy_from_rank_zero(model.non_trainable_variables)


def gather(part: Any) -> list[Any] | None:
    """Return the objects of all ranks, in their order, on rank 0, and None on the others; without ranks, a list of one.

    They are pickled: use it for data of this program alone.
    """
    group = _group()
    if group is None:
        return [part]
    parts = [None] * group.get_world_size() if group.get_rank() == 0 else None
    group.gather_object(part, parts)
    return parts


def _group() -> Any:
    """Return torch.distributed if it is set up, else None; does not import torch."""
    import sys

    group = getattr(sys.modules.get("torch"), "distributed", None)
    return group if group is not None and group.is_available() and group.is_initialized() else None


def _copy_from_rank_zero(variables: Sequence[Any]) -> None:
    group = _group()
    for variable in variables:
        group.broadcast(variable.value.data, src=0)


def _mean(grads: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Return the mean of the gradients over ranks, sent as one message: one per variable would be slower."""
    import torch

    group = _group()
    pairs = zip(grads, variables, strict=True)
    tensors = [torch.zeros_like(variable.value) if grad is None else grad for grad, variable in pairs]
    flat = torch.cat([tensor.reshape(-1).to(torch.float32) for tensor in tensors])
    group.all_reduce(flat)
    flat /= group.get_world_size()
    edges = np.cumsum([tensor.numel() for tensor in tensors])[:-1].tolist()
    means = torch.tensor_split(flat, edges)
    return [mean.reshape(tensor.shape).to(tensor.dtype) for mean, tensor in zip(means, tensors, strict=True)]
