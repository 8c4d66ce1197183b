"""Gradient training of any module: schedule, early stopping, checkpoints, exact resume.

AdamW, a linear warm-up into a cosine decay, gradient clipping, bf16 where the device has it.
A checkpoint is a file of plain arrays written after every epoch; a run that finds one of the
same settings and data goes on as if it had not been interrupted. Processes that train together
(see ``ranks``) take a share of every batch each; the first validates and writes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nextedge.errors import MissingDependencyError, TrainingError
from nextedge.models.artifact import fingerprint
from nextedge.models.distributed.collectives import current_ranks
from nextedge.models.model import ModelConfig, ModelProgress, TrainingData
from nextedge.types import IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINT = "checkpoint.npz"
EPOCH = 1_000_003
"""A batch's seed is its epoch times this, plus its place."""


class TrainerConfig(ModelConfig):
    """Settings of the training loop."""

    epochs: int = Field(20, ge=1)
    batch: int = Field(2048, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    warm_up: float = Field(0.05, ge=0, le=1)
    """Share of all steps over which the learning rate rises from 0."""
    clip: float = Field(1.0, gt=0)
    """Longest gradient, over all parameters."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation before training stops."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` takes bfloat16 on a GPU that has it, float32 elsewhere."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        module: whose parameters are fitted.
        batches: epoch → batches, the same for the same epoch.
        steps: batches of an epoch.
        loss: this process's share of a batch's loss: those of all processes add up to it. Told
            how much of the training is done, from 0 to 1.
        validate: ranking quality, higher is better; called after every epoch, on the first
            process alone.
    """

    module: nn.Module
    batches: Callable[[int], Iterable[Any]]
    steps: int
    loss: Callable[[Any, float], Tensor]
    validate: Callable[[], float]


@dataclass
class TrainingLog:
    """What happened, epoch by epoch."""

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = -1

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def import_torch(model: str) -> Any:
    """The ``torch`` module; raises MissingDependencyError that names what to install."""
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("torch", "train", f"training the model {model!r}") from None
    return torch


def training_facts(model: str, config: ModelConfig, data: TrainingData) -> dict[str, Any]:
    """What decides a training beside the trainer's own settings: see ``train``."""
    graph, ranks = data.graph, current_ranks()
    mark = np.zeros(20, np.uint8)
    if ranks.first:  # a look at all of the data, which the others need not take
        known = fingerprint(graph.indptr, graph.indices, graph.last)
        mark = np.frombuffer(known.encode(), np.uint8)
    return {
        "model": model,
        "settings": config.model_dump(mode="json", exclude={"trainer"}),
        "seed": data.seed,
        "data": ranks.from_first(mark).tobytes().decode(),
    }


EdgeBatch = tuple[int, IndexArray, IndexArray]
"""Seed of a batch, and its edges: int32[B] sources and targets."""


def edge_batches(
    edges: tuple[IndexArray, IndexArray], size: int, seed: int
) -> Callable[[int], Iterator[EdgeBatch]]:
    """Epoch → whole batches of the edges, in another order each epoch."""

    def batches(epoch: int) -> Iterator[EdgeBatch]:
        order = np.random.default_rng([seed, epoch]).permutation(len(edges[0]))
        for step in range(len(order) // size):
            rows = order[step * size : (step + 1) * size]
            yield epoch * EPOCH + step, edges[0][rows], edges[1][rows]

    return batches


def train(
    task: Task,
    config: TrainerConfig,
    *,
    facts: dict[str, Any],
    directory: Path | None,
    progress: ModelProgress,
) -> TrainingLog:
    """Fit the module in place; it ends with the parameters of its best epoch.

    Args:
        facts: what else decides the result (model settings, seed, fingerprint of the data);
            a checkpoint of other facts is refused.
        directory: where the checkpoint is kept, or None.

    Raises:
        TrainingError: the loss is not finite, the checkpoint is of another configuration, or
            processes that train together do not see the same one.
    """
    run = _Run(task, config, {**facts, "trainer": config.model_dump()}, directory)
    run.resume()
    with _deterministic():
        _epochs(run, config, facts, progress)
    run.finish()
    return run.log


@contextmanager
def _deterministic() -> Iterator[None]:
    """Sums in one order, so that the same seed gives the same parameters."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _epochs(
    run: _Run, config: TrainerConfig, facts: dict[str, Any], progress: ModelProgress
) -> None:
    while not run.finished:
        run.epoch()
        if not run.ranks.first:
            continue
        best = max(run.log.validation)
        progress(
            f"{facts.get('model', 'training')}: loss {run.log.loss[-1]:.4f}, "
            f"validation {run.log.validation[-1]:.4f} (best {best:.4f})",
            len(run.log.loss),
            config.epochs,
        )


def data_parallel(task: Task) -> nn.Module:
    """The task's loss as a module under PyTorch's DistributedDataParallel.

    Models call their layers by hand, so that what is wrapped is the whole loss: its backward
    averages the parameters' gradients, bucket by bucket, as soon as they are there. A group of
    its own keeps these sums apart from those that the loss makes itself.
    """
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = task.module

        def forward(self, batch: Any, done: float) -> Tensor:
            return task.loss(batch, done)

    # Statistics of batch norm are alike on all ranks; layers of a kind may be out of use.
    return DistributedDataParallel(
        Loss(),
        process_group=dist.new_group(),
        forward_sync_buffers=False,
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
    )


class _Run:
    """The state of one training."""

    def __init__(
        self, task: Task, config: TrainerConfig, facts: dict[str, Any], directory: Path | None
    ) -> None:
        import torch

        self.task, self.config, self.facts = task, config, facts
        self.ranks = current_ranks()
        self.path = None if directory is None else directory / CHECKPOINT
        self.log = TrainingLog()
        self.parameters = [p for p in task.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.device = self.parameters[0].device
        self.best = self._state()
        self._parallel: Any = None

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the best is too long ago."""
        done = len(self.log.loss)
        waited = done - 1 - self.log.best_epoch
        return done >= self.config.epochs or (done > 0 and waited >= self.config.patience)

    def epoch(self) -> None:
        """One pass over the batches, one validation, one checkpoint."""
        import torch

        number, total = len(self.log.loss), 0.0
        bfloat16 = self.config.precision == "bfloat16" or (
            self.config.precision == "auto"
            and self.device.type == "cuda"
            and torch.cuda.is_bf16_supported()
        )
        self.task.module.train()
        share = self._share_of_loss()
        for place, batch in enumerate(self.task.batches(number)):
            step = number * self.task.steps + place
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self._rate(step)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                loss = share(batch, step / (self.task.steps * self.config.epochs))
            value = float(self.ranks.total(loss.detach()))
            if not math.isfinite(value):
                raise TrainingError(
                    f"training diverged: the loss of epoch {number + 1}, step {place + 1} is "
                    f"{value}; lower learning_rate (given: {self.config.learning_rate})"
                )
            self.optimizer.zero_grad(set_to_none=True)
            (loss * self.ranks.size).backward()  # gradients are averaged over the ranks
            self._count_step()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
            self.optimizer.step()
            total += value
        self.task.module.eval()
        quality = self._validate()
        self.log.loss.append(total / max(self.task.steps, 1))
        self.log.validation.append(quality)
        if quality >= max(self.log.validation):
            self.log.best_epoch = number
            self.best = self._state()
        self._save()

    def _share_of_loss(self) -> Callable[[Any, float], Tensor]:
        """The task's loss; backward through it averages gradients over all ranks."""
        if self.ranks.size == 1:
            return self.task.loss
        if self._parallel is None:
            self._parallel = data_parallel(self.task)
        return self._parallel

    def _count_step(self) -> None:
        if self.ranks.size > 1:
            given = [p.grad for p in self.parameters if p.grad is not None]
            self.ranks.sent_bytes += sum(g.numel() * g.element_size() for g in given)
            self.ranks.steps += 1

    def _validate(self) -> float:
        import torch

        quality = np.zeros(1)
        if self.ranks.first:
            with torch.no_grad():
                quality[0] = self.task.validate()
        return float(self.ranks.from_first(quality)[0])

    def finish(self) -> None:
        """Take the best epoch's parameters and drop the checkpoint."""
        self._restore(self.best)
        self.task.module.eval()
        if self.path is not None and self.ranks.first:
            self.path.unlink(missing_ok=True)

    def resume(self) -> None:
        """Go on from a checkpoint, if there is one."""
        self._load()
        done = len(self.log.loss)
        ahead = int(self.ranks.from_first(np.array([done]))[0])
        wrong = self.ranks.ids(np.array([self.ranks.rank] * (done != ahead), np.int32))
        if behind := [int(rank) for ranks in wrong for rank in ranks]:
            raise TrainingError(
                f"{self.path}: process 0 goes on after epoch {ahead}, processes {behind} do not see "
                "the same checkpoint; the folder must be shared by all machines"
            )

    def _load(self) -> None:
        import torch

        if self.path is None or not self.path.exists():
            return
        with np.load(self.path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            differing = [
                f"{name} was {about['facts'].get(name)!r}, is {self.facts.get(name)!r}"
                for name in sorted(about["facts"].keys() | self.facts.keys())
                if about["facts"].get(name) != json.loads(json.dumps(self.facts.get(name)))
            ]
            if differing:
                raise TrainingError(
                    f"{self.path}: a checkpoint of another training ({'; '.join(differing)}); "
                    "delete it, or go back to its configuration"
                )
            self.log = TrainingLog(**about["log"])
            now = {n[4:]: arrays[n] for n in arrays.files if n.startswith("now/")}
            self.best = {n[5:]: arrays[n] for n in arrays.files if n.startswith("best/")}
            self._restore(now)
            state = self.optimizer.state
            for place, parameter in enumerate(self.parameters):
                if f"adam/{place}/step" in arrays.files:
                    state[parameter] = {
                        part: torch.from_numpy(np.array(arrays[f"adam/{place}/{part}"])).to(
                            "cpu" if part == "step" else self.device
                        )
                        for part in ("step", "exp_avg", "exp_avg_sq")
                    }
            torch.set_rng_state(torch.from_numpy(np.array(arrays["random"])))

    def _save(self) -> None:
        if self.path is None or not self.ranks.first:
            return
        import torch

        arrays = {f"now/{name}": values for name, values in self._state().items()}
        arrays |= {f"best/{name}": values for name, values in self.best.items()}
        for place, parameter in enumerate(self.parameters):
            for part, value in self.optimizer.state.get(parameter, {}).items():
                arrays[f"adam/{place}/{part}"] = value.detach().cpu().numpy()
        arrays["random"] = torch.get_rng_state().numpy()
        arrays["about"] = np.array(json.dumps({"facts": self.facts, "log": self.log.to_json()}))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.npz")
        try:
            np.savez(partial, allow_pickle=False, **arrays)
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def _state(self) -> dict[str, np.ndarray]:
        return {
            name: value.detach().cpu().numpy().copy()
            for name, value in self.task.module.state_dict().items()
        }

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        import torch

        self.task.module.load_state_dict(
            {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        )

    def _rate(self, step: int) -> float:
        total = self.task.steps * self.config.epochs
        warm = max(1, int(total * self.config.warm_up))
        if step < warm:
            return (step + 1) / warm
        share = (step - warm) / max(1, total - warm)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
