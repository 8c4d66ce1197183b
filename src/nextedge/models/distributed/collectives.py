"""Shares of a batch, and sums over the processes that train one model together.

Every process (a rank) reads the same batches with the same parameters and computes its share of
their rows. Where the rows of a batch meet (in-batch negatives, statistics of batch norm) the ranks
exchange their results, so that the loss and its gradients equal those of one process up to the
order of sums. A process that trains alone is the only rank and exchanges nothing.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nextedge.errors import TrainingError
from nextedge.types import IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Share:
    """The rows of a batch that this process computes.

    Attributes:
        rows: their positions in the batch.
        total: rows of the whole batch.
    """

    rows: slice | IndexArray
    total: int

    @property
    def part(self) -> float:
        """Share of the batch's rows, 0 to 1."""
        rows = self.rows
        count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        return float(count / self.total)

    @property
    def whole(self) -> bool:
        """Whether these are all rows, in order."""
        return isinstance(self.rows, slice) and (self.rows.stop - self.rows.start) == self.total


class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        size: number of processes.
        sent_bytes: bytes that it has sent in collective operations so far.
        steps: batches that it took part in.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.sent_bytes = 0
        self.steps = 0

    @property
    def first(self) -> bool:
        """Whether this process validates, writes and reports progress."""
        return self.rank == 0

    def share(self, total: int) -> Share:
        """An equal share of ``total`` rows, in order of the ranks.

        Raises:
            TrainingError: there are fewer rows than processes.
        """
        if total < self.size:
            raise TrainingError(
                f"{self.size} processes share batches of {total} rows: expected a row for each or "
                "more; set [training] processes lower, or the model's batch higher"
            )
        begin, end = (total * rank // self.size for rank in (self.rank, self.rank + 1))
        return Share(slice(begin, end), total)

    def sum(self, x: Tensor) -> Tensor:
        """Sum of all ranks' tensors of one shape; gradients flow back to every rank."""
        if self.size == 1:
            return x
        self.sent_bytes += x.numel() * x.element_size()
        return _sum_of_all().apply(x)

    def whole(self, part: Tensor, share: Share, dim: int = 0) -> Tensor:
        """The rows of all ranks (or columns, with ``dim`` 1) in order; gradients flow back."""
        if self.size == 1:
            return part
        shape = list(part.shape)
        shape[dim] = share.total
        # By a sum: PyTorch's all_gather carries no gradients back.
        full = part.new_zeros(shape)
        full[(slice(None),) * dim + (share.rows,)] = part
        return self.sum(full)

    def total(self, value: Tensor) -> Tensor:
        """Sum of all ranks' tensors, without gradients."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        # all_reduce writes in place.
        value = value.detach().clone()
        self.sent_bytes += value.numel() * value.element_size()
        dist.all_reduce(value)
        return value

    def from_first(self, values: np.ndarray) -> np.ndarray:
        """The array of the first rank; the other ranks pass one of its shape and type."""
        if self.size == 1:
            return values
        import torch
        import torch.distributed as dist

        # A copy, since the broadcast writes into it; bytes, since NumPy has types that torch lacks.
        sent = torch.from_numpy(np.ascontiguousarray(values).reshape(-1).view(np.uint8).copy())
        if self.first:
            self.sent_bytes += sent.numel()
        dist.broadcast(sent, 0)
        return sent.numpy().view(values.dtype).reshape(values.shape)

    def ids(self, values: IndexArray) -> list[IndexArray]:
        """Every rank's int32[n]; the lengths may differ."""
        if self.size == 1:
            return [values]
        import torch
        import torch.distributed as dist

        count = self.numbers(len(values))
        # all_gather takes tensors of one length.
        sent = torch.zeros(max(*count, 1), dtype=torch.int32)
        sent[: len(values)] = torch.from_numpy(np.asarray(values, np.int32))
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent)
        self.sent_bytes += 4 * sent.numel() + 8
        return [ids.numpy()[:size] for ids, size in zip(received, count, strict=True)]

    def swap(self, parts: list[Tensor], sizes: list[int]) -> list[Tensor]:
        """Send each rank its tensor [n, d] of ``parts``; receive [sizes[r], d] from each rank r."""
        import torch
        import torch.distributed as dist

        width = parts[0].shape[1:]
        received = torch.empty((sum(sizes), *width), dtype=parts[0].dtype)
        others = [part for rank, part in enumerate(parts) if rank != self.rank]
        self.sent_bytes += sum(part.numel() * part.element_size() for part in others)
        dist.all_to_all_single(received, torch.cat(parts), sizes, [len(part) for part in parts])
        return list(received.split(sizes))

    def numbers(self, value: int) -> list[int]:
        """Every rank's number."""
        if self.size == 1:
            return [value]
        import torch
        import torch.distributed as dist

        received = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(received, torch.tensor([value]))
        return [int(number) for number in received]


_ALONE = Ranks()
_joined: tuple[Any, Ranks] | None = None


def current_ranks() -> Ranks:
    """The ranks of PyTorch's process group; one rank where there is no group."""
    global _joined
    # A group exists only where torch is loaded, and loading it takes seconds.
    if "torch" not in sys.modules:
        return _ALONE
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return _ALONE
    group = dist.group.WORLD
    # A later training of this process has a group of its own.
    if _joined is None or _joined[0] is not group:
        _joined = group, Ranks(dist.get_rank(), dist.get_world_size())
    return _joined[1]


def training_processes(footprint: Mapping[str, Any]) -> dict[str, Any]:
    """The entry ``processes`` of an artifact's facts; none where one process trained it.

    Args:
        footprint: facts of this process; the entry lists numbers for all processes.
    """
    ranks = current_ranks()
    if ranks.size == 1:
        return {}
    numbers = {
        "sent_bytes_a_step": round(ranks.sent_bytes / max(ranks.steps, 1)),
        # Linux counts in KiB.
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    numbers |= {name: value for name, value in footprint.items() if isinstance(value, int)}
    words = {name: value for name, value in footprint.items() if not isinstance(value, int)}
    by_rank = {name: ranks.numbers(value) for name, value in numbers.items()}
    return {"processes": {"number": ranks.size, **words, **by_rank}}


@cache
def _sum_of_all() -> Any:
    import torch
    import torch.distributed as dist

    class SumOfAll(torch.autograd.Function):
        """A sum over ranks; as every rank's loss reads it, its gradients add up as well."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            x = x.contiguous().clone()  # all_reduce writes in place
            dist.all_reduce(x)
            return x

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            gradient = gradients[0].contiguous().clone()
            dist.all_reduce(gradient)
            return gradient

    return SumOfAll


def dropout(x: Tensor, rate: float, share: Share, *, training: bool) -> Tensor:
    """Dropout of the rows of a share, as one process would draw it for the whole batch.

    Args:
        x: [n, …], the rows of the share.
    """
    import torch

    if share.whole or not training or rate == 0.0:
        return torch.nn.functional.dropout(x, rate, training)
    # Every rank draws for all rows, which also keeps the generators of the ranks in step.
    scale = x.new_empty((share.total, *x.shape[1:])).bernoulli_(1.0 - rate).div_(1.0 - rate)
    rows = share.rows
    return x * scale[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(x.device)]


def batch_norm(
    layer: nn.BatchNorm1d, x: Tensor, ranks: Ranks, weight: Tensor | None = None
) -> Tensor:
    """Batch norm over the rows of all ranks.

    Args:
        x: [n, d], the rows of this rank.
        weight: [n], weight of each row: 1 / (ranks that have it); None: 1.
    """
    if ranks.size == 1 or not layer.training:
        return layer(x)
    import torch

    weight = x.new_ones(len(x), 1) if weight is None else weight[:, None]
    # Summed here, since PyTorch's SyncBatchNorm needs CUDA.
    count = ranks.total(weight.sum())
    mean = ranks.sum((x * weight).sum(dim=0)) / count
    centred = x - mean
    variance = ranks.sum((centred.square() * weight).sum(dim=0)) / count
    with torch.no_grad():
        assert layer.running_mean is not None and layer.running_var is not None
        assert layer.momentum is not None and layer.num_batches_tracked is not None
        layer.num_batches_tracked += 1
        layer.running_mean.lerp_(mean.detach(), layer.momentum)
        # PyTorch's running variance is the unbiased one.
        unbiased = variance.detach() * (count / (count - 1).clamp_min(1))
        layer.running_var.lerp_(unbiased, layer.momentum)
    return centred * torch.rsqrt(variance + layer.eps) * layer.weight + layer.bias
