"""Losses, negatives, the sampler and the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from nextedge.errors import TrainingError
from nextedge.graph.csr import build_graph
from nextedge.graph.sampler import sample_neighbors
from nextedge.models.distributed.collectives import Share
from nextedge.models.model import model_classes
from nextedge.models.neural.losses import (
    binary_cross_entropy,
    bpr,
    edge_loss,
    sampled_softmax,
    triplet_margin,
)
from nextedge.models.neural.negatives import CurriculumConfig, Negatives
from nextedge.models.neural.trainer import CHECKPOINT, Task, TrainerConfig, TrainingLog, train
from nextedge.testing.models import planted
from nextedge.types import CONNECTS

torch = pytest.importorskip("torch")


def test_sampler_gives_distinct_neighbors_and_in_time_all_of_them() -> None:
    random = np.random.default_rng(0)
    source = random.integers(0, 50, 3000).astype(np.int32)
    target = random.integers(0, 200, 3000).astype(np.int32)
    graph = build_graph(source, target, 50, 200)
    nodes = np.arange(50, dtype=np.int32)
    seen = np.zeros(200)
    for seed in range(40):
        indptr, found = sample_neighbors(graph, nodes, 10, seed)
        row = np.repeat(nodes, np.diff(indptr))
        assert graph.contains(row, found).all()
        assert len(set(zip(row.tolist(), found.tolist(), strict=True))) == len(found)
        assert np.diff(indptr).max() <= 10
        seen += np.bincount(found, minlength=200)
    again = sample_neighbors(graph, nodes, 10, 39)[1]
    assert again.tolist() == found.tolist()
    reachable = np.bincount(graph.indices, minlength=200) > 0
    assert (seen[reachable] > 0).mean() > 0.95


def test_a_node_is_sampled_alike_whoever_stands_beside_it() -> None:
    graph = build_graph(np.zeros(100, np.int32), np.arange(100, dtype=np.int32), 3, 100)
    alone = sample_neighbors(graph, np.int32([0]), 7, 5)[1]
    beside = sample_neighbors(graph, np.int32([2, 1, 0]), 7, 5)[1]
    assert alone.tolist() == beside.tolist()


def test_losses_agree_with_their_formulas() -> None:
    positive, negative = torch.tensor([2.0, -1.0]), torch.tensor([[1.0, 0.0], [3.0, -2.0]])
    sigmoid = torch.sigmoid
    expected = -torch.log(sigmoid(positive)).mean() - torch.log(sigmoid(-negative)).mean()
    assert float(binary_cross_entropy(positive, negative)) == pytest.approx(float(expected))
    expected = -torch.log(sigmoid(positive[:, None] - negative)).mean()
    assert float(bpr(positive, negative)) == pytest.approx(float(expected))
    assert float(triplet_margin(positive, negative, 0.5)) == pytest.approx((0.0 + 4.5) / 2)


def test_in_batch_softmax_masks_accidental_hits_and_corrects_for_popularity() -> None:
    query, candidate = torch.eye(3), torch.eye(3)
    ids = torch.tensor([0, 1, 2])
    zero = torch.zeros(3)
    plain = sampled_softmax(query, candidate, ids, zero, temperature=1.0)
    assert float(plain) == pytest.approx(float(np.log(np.e + 2) - 1))
    # Rows 0 and 1 hold the same candidate: neither is the other's negative.
    twice = sampled_softmax(query, candidate, torch.tensor([5, 5, 2]), zero, temperature=1.0)
    assert float(twice) == pytest.approx(float((2 * np.log(np.e + 1) + np.log(np.e + 2)) / 3 - 1))
    popular = torch.log(torch.tensor([0.8, 0.1, 0.1]))
    rows = query @ candidate.T - popular[None, :]
    expected = torch.nn.functional.cross_entropy(rows, torch.arange(3))
    found = sampled_softmax(query, candidate, ids, popular, temperature=1.0)
    assert float(found) == pytest.approx(float(expected))


def test_losses_of_a_batch_leave_out_rows_with_the_same_candidate() -> None:
    query, candidate = torch.eye(3), torch.eye(3)
    ids = torch.tensor([5, 5, 2])
    drawn = torch.tensor([[0.3], [-0.2], [0.9]])
    settings = {"temperature": 0.5, "margin": 0.4, "extra": drawn}
    whole = Share(slice(0, 3), 3)
    # Rows 0 and 1 hold the same candidate, so each has one negative of the batch and one drawn.
    losses = {
        kind: edge_loss(kind, query, candidate, ids, torch.zeros(3), share=whole, **settings)
        for kind in ("in_batch", "bce", "triplet")
    }
    log_sigmoid = torch.nn.functional.logsigmoid
    negative_loss = [
        -log_sigmoid(-torch.tensor(row) / 0.5).mean()
        for row in ([0.0, 0.3], [0.0, -0.2], [0.0, 0.0, 0.9])
    ]
    expected = -log_sigmoid(torch.tensor(2.0)) + sum(negative_loss) / 3
    assert float(losses["bce"]) == pytest.approx(float(expected))
    # Only the drawn negative of row 2 lies within the margin of its edge.
    assert float(losses["triplet"]) == pytest.approx((0.4 - 1.0 + 0.9) / 3)
    softmax = sampled_softmax(
        query, candidate, ids, torch.zeros(3), temperature=0.5, extra=drawn, share=whole
    )
    assert float(losses["in_batch"]) == float(softmax)
    parts = [
        edge_loss(
            "bce",
            query[rows],
            candidate,
            ids,
            torch.zeros(3),
            share=Share(rows, 3),
            **{**settings, "extra": drawn[rows]},
        )
        for rows in (slice(0, 1), slice(1, 3))
    ]
    assert float(sum(parts)) == pytest.approx(float(losses["bce"]))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        (name, loss)
        for name, losses in (
            ("graphsage", ("in_batch", "bce", "triplet")),
            ("two_tower", ("in_batch", "bce", "triplet")),
            ("lightgcn", ("softmax", "bpr", "bce", "triplet")),
        )
        for loss in losses
    ],
)
def test_every_loss_of_the_settings_trains(name: str, loss: str) -> None:
    model, (data, _, _) = model_classes()[name](), planted(CONNECTS)
    trainer = {"epochs": 4, "patience": 4}
    config = model.config_class.model_validate({"loss": loss, "trainer": trainer})
    log = model.fit(data, config, lambda *_: None).about["log"]
    assert log["loss"][-1] < log["loss"][0]
    assert max(log["validation"]) > 0.1


def test_a_loss_that_no_model_has_is_refused() -> None:
    for name in ("graphsage", "two_tower", "lightgcn"):
        with pytest.raises(ValidationError, match="triplet"):
            model_classes()[name].config_class.model_validate({"loss": "hinge"})


def test_negatives_follow_their_kind_and_the_curriculum_its_schedule() -> None:
    target = np.repeat([0, 1], [90, 10]).astype(np.int32)
    graph = build_graph(np.arange(100, dtype=np.int32), target, 100, 3)
    config = CurriculumConfig(
        stages=((0.5, "uniform"), (1.0, "hard")), negatives=4000, hard_pool=(0, 1)
    )
    assert [config.kind_at(done) for done in (0.0, 0.49, 0.5, 1.0)] == [
        "uniform",
        "uniform",
        "hard",
        "hard",
    ]
    negatives, random = Negatives(graph, config), np.random.default_rng(0)
    assert np.bincount(negatives.shared("uniform", random), minlength=3)[2] == 0
    share = np.bincount(negatives.shared("popularity", random)) / 4000
    assert share[0] == pytest.approx(90**0.75 / (90**0.75 + 10**0.75), abs=0.03)
    vectors = np.eye(3, dtype=np.float32)
    embedded = [0]

    def embed() -> tuple[np.ndarray, np.ndarray]:
        embedded[0] += 1
        return np.tile(vectors[:1], (100, 1)) + 0.5 * vectors[1], vectors

    # The best candidate that is no edge of the query: 1 for those who have 0.
    for epoch in (0, 0, 1):
        assert set(negatives.hard(np.int32([0]), epoch, embed, random)[0]) == {1}
    assert embedded == [2]  # once an epoch
    with pytest.raises(ValidationError, match="ascending"):
        CurriculumConfig(stages=((0.5, "uniform"), (0.4, "hard")))


def line(
    seed: int = 0, stop_after: int | None = None, explode: bool = False
) -> tuple[torch.nn.Module, Task]:
    """A regression of y = 3 x, whose batches end early after some epochs if asked."""
    torch.manual_seed(seed)
    module = torch.nn.Linear(1, 1)

    def batches(epoch: int) -> Iterator[torch.Tensor]:
        if stop_after is not None and epoch >= stop_after:
            raise KeyboardInterrupt
        random = np.random.default_rng(epoch)
        for _ in range(5):
            yield torch.from_numpy(random.standard_normal((16, 1)).astype(np.float32))

    def loss(x: torch.Tensor, done: float) -> torch.Tensor:
        noise = 0.1 * torch.randn(16, 1)
        wrong = ((module(x) - 3 * x + noise) ** 2).mean()
        return wrong * float("nan") if explode and done > 0.3 else wrong

    def validate() -> float:
        return -abs(float(module.weight) - 3)

    return module, Task(module, batches, 5, loss, validate)


def fit(task: Task, directory: Path | None, **settings: float) -> TrainingLog:
    config = TrainerConfig(**{"epochs": 6, "learning_rate": 0.1, "patience": 6, **settings})
    return train(
        task, config, facts={"model": "line"}, directory=directory, progress=lambda *_: None
    )


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, task = line()
    log = fit(task, None)
    _, task = line(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        fit(task, tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    torch.manual_seed(99)  # resuming does not depend on what was drawn in between
    resumed, task = line(seed=5)
    assert fit(task, tmp_path) == log
    assert torch.equal(resumed.weight, whole.weight)
    assert not (tmp_path / CHECKPOINT).exists()
    assert log.loss[-1] < log.loss[0]


def test_a_checkpoint_of_another_configuration_is_refused_with_the_difference(
    tmp_path: Path,
) -> None:
    _, task = line(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        fit(task, tmp_path)
    _, task = line()
    with pytest.raises(TrainingError, match=r"learning_rate.*0\.1.*0\.2"):
        fit(task, tmp_path, learning_rate=0.2)


def test_a_training_that_diverges_is_stopped_and_says_where() -> None:
    _, task = line(explode=True)
    with pytest.raises(TrainingError, match=r"diverged.*epoch 3.*learning_rate"):
        fit(task, None)


def test_training_stops_when_validation_no_longer_rises_and_keeps_the_best() -> None:
    module, task = line()
    quality = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    kept = []

    def validate() -> float:
        kept.append(module.weight.detach().clone())
        return next(quality)

    log = fit(Task(module, task.batches, 5, task.loss, validate), None, patience=2)
    assert log.validation == [0.1, 0.5, 0.4, 0.3]
    assert log.best_epoch == 1
    assert torch.equal(module.weight, kept[1])
