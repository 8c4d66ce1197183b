"""Gradient training of any module: schedule, early stopping, checkpoints, exact resume.

AdamW, a linear warm-up into a cosine decay, gradient clipping, bfloat16 where the device has it.
After every epoch the trainer writes a checkpoint, a file of plain arrays. A training that finds a
checkpoint of the same settings and data continues as if nothing had interrupted it. Processes that
train together (see ``collectives``) take a share of every batch each; the first one validates and
writes.
"""

from __future__ import annotations

import json
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nextedge.errors import TrainingError
from nextedge.models.artifact import Artifact, arrays_below, fingerprint
from nextedge.models.distributed.collectives import current_ranks, training_processes
from nextedge.models.model import Config, Model, ModelConfig, ModelProgress, TrainingData
from nextedge.models.pytorch import import_torch, load_parameters, parameter_arrays
from nextedge.types import IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINT = "checkpoint.npz"
EPOCH = 1_000_003
"""The seed of a batch is its epoch times this, plus its position in the epoch."""
EdgeBatch = tuple[int, IndexArray, IndexArray]
"""Seed of a batch, and its edges: int32[B] sources and targets."""


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
    """A module to train.

    Attributes:
        module: its parameters are fitted.
        batches: epoch → batches, the same ones each time for the same epoch.
        steps: batches of an epoch.
        loss: (batch, share of the training that is done, 0 to 1) → this process's share of the
            loss; the shares of all processes add up to the loss of the batch.
        validate: ranking quality, higher is better; the first process calls it after every epoch.
        arrays: of the trained module, as its artifact stores them; None: ``weight.`` and its name
            for each parameter.
        footprint: facts about what this process stores of the graph; see ``training_processes``.
    """

    module: nn.Module
    batches: Callable[[int], Iterable[Any]]
    steps: int
    loss: Callable[[Any, float], Tensor]
    validate: Callable[[], float]
    arrays: Callable[[], Mapping[str, np.ndarray]] | None = None
    footprint: Mapping[str, int | str] = field(default_factory=dict)


@dataclass
class TrainingLog:
    """Loss and validation, epoch by epoch."""

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = -1


class GradientModel(Model[Config]):
    """A model that the trainer fits; its settings have those of the trainer as ``trainer``."""

    extra = "train"
    trained = True

    @abstractmethod
    def task(self, data: TrainingData, config: Config) -> Task:
        """The training of the model, whose first parameters PyTorch's generator gives.

        Raises:
            TooLittleDataError: too few edges.
        """

    def fit(self, data: TrainingData, config: Config, progress: ModelProgress) -> Artifact:
        """Train, then embed all nodes; the same seed gives the same bits.

        Raises:
            TooLittleDataError: too few edges.
            TrainingError: the training diverged.
            MissingDependencyError: torch is not installed.
        """
        torch = import_torch(f"the model {self.name!r}")
        settings: Any = config
        # The seed decides the first parameters and dropout, and the caller's generator stays.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(data.seed)
            task, facts = self.task(data, config), training_facts(self.name, config, data)
            log = train(
                task, settings.trainer, facts=facts, directory=data.directory, progress=progress
            )
        arrays = stored_parameters(task.module) if task.arrays is None else task.arrays()
        about = {"seed": data.seed, "log": asdict(log), **training_processes(task.footprint)}
        fitted = Artifact(self.name, config.model_dump(mode="json"), arrays, about)
        # Only the first process writes the artifact: the others need no embeddings.
        return self.embed(fitted, data) if current_ranks().first else fitted


def stored_parameters(module: nn.Module) -> dict[str, np.ndarray]:
    """The parameters of a module by their names in an artifact."""
    return {f"weight.{name}": values for name, values in parameter_arrays(module).items()}


def training_facts(model: str, config: ModelConfig, data: TrainingData) -> dict[str, Any]:
    """The facts beside the trainer's settings that decide a training: see ``train``."""
    graph, ranks = data.graph, current_ranks()
    # The length of a fingerprint: all ranks pass arrays of one shape.
    digest = np.zeros(20, np.uint8)
    if ranks.first:  # it takes a pass over the data, which one process makes for all
        text = fingerprint(graph.indptr, graph.indices, graph.last)
        digest = np.frombuffer(text.encode(), np.uint8)
    return {
        "model": model,
        "settings": config.model_dump(mode="json", exclude={"trainer"}),
        "seed": data.seed,
        "data": ranks.from_first(digest).tobytes().decode(),
    }


def edge_batches(
    edges: tuple[IndexArray, IndexArray], size: int, seed: int
) -> Callable[[int], Iterator[EdgeBatch]]:
    """Epoch → whole batches of the edges, in a new order each epoch."""

    def batches(epoch: int) -> Iterator[EdgeBatch]:
        order = np.random.default_rng([seed, epoch]).permutation(len(edges[0]))
        # Whole batches alone: the schedule counts on ``Task.steps`` of them.
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
    """Fit the module in place and leave it with the parameters of its best epoch.

    Args:
        facts: all else that decides the result (model settings, seed, fingerprint of the data); a
            checkpoint of other facts is refused.
        directory: folder of the checkpoint, or None for none.

    Raises:
        TrainingError: the loss is not finite, the checkpoint is of another configuration, or
            processes that train together do not see the same one.
    """
    run = _Run(task, config, {**facts, "trainer": config.model_dump()}, directory)
    run.resume()
    with _deterministic():
        while not run.finished:
            run.epoch()
            if run.ranks.first:
                loss, validation = run.log.loss, run.log.validation
                text = f"loss {loss[-1]:.4f}, validation {validation[-1]:.4f}"
                text = f"{facts.get('model', 'training')}: {text} (best {max(validation):.4f})"
                progress(text, len(loss), config.epochs)
    run.finish()
    return run.log


@contextmanager
def _deterministic() -> Iterator[None]:
    """Add in one order, so that the same seed gives the same parameters."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def data_parallel(task: Task) -> nn.Module:
    """The loss of a task as a module under PyTorch's DistributedDataParallel.

    Its backward averages the gradients of the parameters over all processes, bucket by bucket.
    """
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    # Models call their layers one by one, so the wrapped module is the whole loss.
    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = task.module

        def forward(self, batch: Any, done: float) -> Tensor:
            return task.loss(batch, done)

    return DistributedDataParallel(
        Loss(),
        process_group=dist.new_group(),  # apart from the sums that the loss itself exchanges
        forward_sync_buffers=False,  # statistics of batch norm are equal on all ranks
        find_unused_parameters=True,  # a batch may lack nodes of a kind
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
        self.best = self._parameters()
        self._parallel: Any = None

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the best one is more than ``patience`` epochs ago."""
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
        share_of_loss = self._share_of_loss()
        for position, batch in enumerate(self.task.batches(number)):
            step = number * self.task.steps + position
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self._rate(step)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                loss = share_of_loss(batch, step / (self.task.steps * self.config.epochs))
            # The sum: where it is not finite all ranks raise, and none waits for another.
            value = float(self.ranks.total(loss.detach()))
            if not math.isfinite(value):
                raise TrainingError(
                    f"training diverged: the loss of epoch {number + 1}, step {position + 1} is "
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
            self.best = self._parameters()
        self._save()

    def _share_of_loss(self) -> Callable[[Any, float], Tensor]:
        """The loss of the task; its backward averages gradients over all ranks."""
        if self.ranks.size == 1:
            return self.task.loss
        if self._parallel is None:
            self._parallel = data_parallel(self.task)
        return self._parallel

    def _count_step(self) -> None:
        if self.ranks.size > 1:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            self.ranks.sent_bytes += sum(g.numel() * g.element_size() for g in gradients)
            self.ranks.steps += 1

    def _validate(self) -> float:
        import torch

        quality = np.zeros(1)
        if self.ranks.first:
            with torch.no_grad():
                quality[0] = self.task.validate()
        return float(self.ranks.from_first(quality)[0])

    def finish(self) -> None:
        """Restore the parameters of the best epoch and delete the checkpoint."""
        load_parameters(self.task.module, self.best)
        self.task.module.eval()
        if self.path is not None and self.ranks.first:
            # The next training in this folder may have other data, and would refuse it.
            self.path.unlink(missing_ok=True)

    def resume(self) -> None:
        """Continue from a checkpoint, if there is one."""
        self._load()
        done = len(self.log.loss)
        ahead = int(self.ranks.from_first(np.array([done]))[0])
        # Every rank learns of the others' epochs, so that all of them raise and none waits.
        wrong = self.ranks.ids(np.array([self.ranks.rank] * (done != ahead), np.int32))
        if behind := [int(rank) for ranks in wrong for rank in ranks]:
            raise TrainingError(
                f"{self.path}: process 0 continues after epoch {ahead}, but processes {behind} do "
                "not see the same checkpoint; all machines must share the folder"
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
                # Through JSON as the stored ones, since it turns tuples into lists.
                if about["facts"].get(name) != json.loads(json.dumps(self.facts.get(name)))
            ]
            if differing:
                raise TrainingError(
                    f"{self.path}: a checkpoint of another training ({'; '.join(differing)}); "
                    "delete it, or go back to its configuration"
                )
            self.log = TrainingLog(**about["log"])
            self.best = arrays_below(arrays, "best/")
            load_parameters(self.task.module, arrays_below(arrays, "now/"))
            for number, parameter in enumerate(self.parameters):
                if f"adam/{number}/step" in arrays.files:
                    self.optimizer.state[parameter] = {
                        part: torch.from_numpy(np.array(arrays[f"adam/{number}/{part}"])).to(
                            # AdamW counts its steps on the CPU.
                            "cpu" if part == "step" else self.device
                        )
                        for part in ("step", "exp_avg", "exp_avg_sq")
                    }
            # Dropout goes on with the draws of an uninterrupted training.
            torch.set_rng_state(torch.from_numpy(np.array(arrays["random"])))

    def _save(self) -> None:
        if self.path is None or not self.ranks.first:
            return
        import torch

        arrays = {f"now/{name}": values for name, values in self._parameters().items()}
        arrays |= {f"best/{name}": values for name, values in self.best.items()}
        for number, parameter in enumerate(self.parameters):
            for part, value in self.optimizer.state.get(parameter, {}).items():
                arrays[f"adam/{number}/{part}"] = value.detach().cpu().numpy()
        arrays["random"] = torch.get_rng_state().numpy()
        arrays["about"] = np.array(json.dumps({"facts": self.facts, "log": asdict(self.log)}))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # NumPy adds ``.npz`` to any name that does not end so.
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.npz")
        try:
            np.savez(partial, allow_pickle=False, **arrays)
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def _parameters(self) -> dict[str, np.ndarray]:
        # The optimiser changes the parameters in place, so they are copied.
        return {name: x.copy() for name, x in parameter_arrays(self.task.module).items()}

    def _rate(self, step: int) -> float:
        total = self.task.steps * self.config.epochs
        warm = max(1, int(total * self.config.warm_up))
        if step < warm:
            return (step + 1) / warm
        share = (step - warm) / max(1, total - warm)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
