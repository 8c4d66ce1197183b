"""PyTorch where it is installed, and the parameters of its modules as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nextedge.errors import MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor, nn


def import_torch(purpose: str) -> Any:
    """The ``torch`` module; raises MissingDependencyError that names the package to install."""
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("torch", "train", f"training {purpose}") from None
    return torch


def parameter_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """The parameters and buffers of a module by name; those on the CPU share its memory."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def load_parameters(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into the parameters and buffers of a module."""
    import torch

    # PyTorch takes no read-only arrays, as mapped ones are: each is copied first.
    module.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in arrays.items()})


def as_index(positions: npt.NDArray[np.integer]) -> Tensor:
    """int64 tensor of positions, the only kind that PyTorch indexes with."""
    import torch

    return torch.from_numpy(positions.astype(np.int64))
