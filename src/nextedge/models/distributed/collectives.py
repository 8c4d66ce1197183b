"""The processes that train one model together: who computes which rows, and what all have in sum.

Every process (a rank) works on the same batches with the same parameters and computes its share
of their rows. Where the rows of a batch meet (in-batch negatives, statistics of batch norm) ranks
exchange what they computed, so that the loss and its gradients are those of one process up to the
order of sums. A process that trains alone is the only rank, and nothing is exchanged.
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
        rows: their places in the batch.
        total: rows of the whole batch.
    """

    rows: slice | IndexArray
    total: int

    @property
    def part(self) -> float:
        """Share of the batch's rows, 0 to 1."""
        rows = self.rows
        own = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        return float(own / self.total)

    @property
    def whole(self) -> bool:
        """Whether these are all rows, in order."""
        return isinstance(self.rows, slice) and (self.rows.stop - self.rows.start) == self.total


class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its place, from 0.
        size: number of processes.
        sent_bytes: what it has given to collective operations so far.
        steps: batches that it took part in.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.sent_bytes = 0
        self.steps = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and tells."""
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
        begin, end = (total * place // self.size for place in (self.rank, self.rank + 1))
        return Share(slice(begin, end), total)

    def sum(self, x: Tensor) -> Tensor:
        """Sum of all ranks' tensors of one shape; gradients flow back to every rank."""
        if self.size == 1:
            return x
        self.sent_bytes += x.numel() * x.element_size()
        return _sum_of_all().apply(x)

    def whole(self, part: Tensor, share: Share, dim: int = 0) -> Tensor:
        """All ranks' rows (or columns, with ``dim`` 1) in their places; gradients flow back."""
        if self.size == 1:
            return part
        shape = list(part.shape)
        shape[dim] = share.total
        place = (slice(None),) * dim + (share.rows,)
        full = part.new_zeros(shape)
        full[place] = part
        return self.sum(full)

    def total(self, value: Tensor) -> Tensor:
        """Sum of all ranks' tensors, without gradients."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        value = value.detach().clone()
        self.sent_bytes += value.numel() * value.element_size()
        dist.all_reduce(value)
        return value

    def from_first(self, values: np.ndarray) -> np.ndarray:
        """The first rank's array; the others give one of its shape and type."""
        if self.size == 1:
            return values
        import torch
        import torch.distributed as dist

        sent = torch.from_numpy(np.ascontiguousarray(values).reshape(-1).view(np.uint8).copy())
        if self.first:
            self.sent_bytes += sent.numel()
        dist.broadcast(sent, 0)
        return sent.numpy().view(values.dtype).reshape(values.shape)

    def ids(self, values: IndexArray) -> list[IndexArray]:
        """Every rank's int32[n], of lengths of their own."""
        if self.size == 1:
            return [values]
        import torch
        import torch.distributed as dist

        count = self.numbers(len(values))
        sent = torch.zeros(max(*count, 1), dtype=torch.int32)
        sent[: len(values)] = torch.from_numpy(np.asarray(values, np.int32))
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent)
        self.sent_bytes += 4 * sent.numel() + 8
        return [got.numpy()[:size] for got, size in zip(received, count, strict=True)]

    def swap(self, parts: list[Tensor], sizes: list[int]) -> list[Tensor]:
        """Give each rank its tensor [n, d] of ``parts`` and get [sizes[r], d] from each rank r."""
        import torch
        import torch.distributed as dist

        width = parts[0].shape[1:]
        got = torch.empty((sum(sizes), *width), dtype=parts[0].dtype)
        own = parts[self.rank]
        self.sent_bytes += sum(p.numel() * p.element_size() for p in parts if p is not own)
        dist.all_to_all_single(got, torch.cat(parts), sizes, [len(part) for part in parts])
        return list(got.split(sizes))

    def numbers(self, value: int) -> list[int]:
        """Every rank's number."""
        if self.size == 1:
            return [value]
        import torch
        import torch.distributed as dist

        got = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(got, torch.tensor([value]))
        return [int(each) for each in got]

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


_ALONE = Ranks()
_joined: tuple[Any, Ranks] | None = None


def current_ranks() -> Ranks:
    """This process among those of PyTorch's process group; alone where there is none."""
    global _joined
    if "torch" not in sys.modules:
        return _ALONE
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return _ALONE
    group = dist.group.WORLD
    if _joined is None or _joined[0] is not group:
        _joined = group, Ranks(dist.get_rank(), dist.get_world_size())
    return _joined[1]


def shared_by(facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What an artifact tells of processes that trained it together; nothing of one alone."""
    ranks = current_ranks()
    if ranks.size == 1:
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sent = round(ranks.sent_bytes / max(ranks.steps, 1))
    own = {"sent_bytes_a_step": sent, "peak_memory_bytes": peak}
    own |= {name: value for name, value in (facts or {}).items() if isinstance(value, int)}
    told = {n: v for n, v in (facts or {}).items() if not isinstance(v, int)}
    every = {name: ranks.numbers(value) for name, value in own.items()}
    return {"processes": {"number": ranks.size, **told, **every}}


@cache
def _sum_of_all() -> Any:
    import torch
    import torch.distributed as dist

    class SumOfAll(torch.autograd.Function):
        """Each rank's loss depends on every rank's tensor: the gradients add up as well."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            x = x.contiguous().clone()
            dist.all_reduce(x)
            return x

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            gradient = gradients[0].contiguous().clone()
            dist.all_reduce(gradient)
            return gradient

    return SumOfAll


def dropout(x: Tensor, rate: float, share: Share, *, training: bool) -> Tensor:
    """Dropout of a share's rows as one process would draw it for the whole batch.

    Every rank draws for all rows and takes its own, which also keeps the ranks' generators alike.

    Args:
        x: [n, …], the share's rows.
    """
    import torch

    if share.whole or not training or rate == 0.0:
        return torch.nn.functional.dropout(x, rate, training)
    kept = x.new_empty((share.total, *x.shape[1:])).bernoulli_(1.0 - rate).div_(1.0 - rate)
    rows = share.rows
    return x * kept[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(x.device)]


def batch_norm(
    layer: nn.BatchNorm1d, x: Tensor, ranks: Ranks, weight: Tensor | None = None
) -> Tensor:
    """Batch norm over the rows of all ranks (PyTorch's own of this kind needs CUDA).

    Args:
        x: [n, d], this rank's rows.
        weight: [n], what each row counts: 1 / (ranks that have it), or None where all count 1.
    """
    if ranks.size == 1 or not layer.training:
        return layer(x)
    import torch

    each = x.new_ones(len(x), 1) if weight is None else weight[:, None]
    count = ranks.total(each.sum())
    mean = ranks.sum((x * each).sum(dim=0)) / count
    centred = x - mean
    variance = ranks.sum((centred.square() * each).sum(dim=0)) / count
    with torch.no_grad():
        assert layer.running_mean is not None and layer.running_var is not None
        assert layer.momentum is not None and layer.num_batches_tracked is not None
        layer.num_batches_tracked += 1
        layer.running_mean.lerp_(mean.detach(), layer.momentum)
        unbiased = variance.detach() * (count / (count - 1).clamp_min(1))
        layer.running_var.lerp_(unbiased, layer.momentum)
    return centred * torch.rsqrt(variance + layer.eps) * layer.weight + layer.bias
