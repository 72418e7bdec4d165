"""scikit-learn's transformers as encoders: principal and independent components, random projection, and whatever has `fit` and
`transform`. Their state is arrays by name; nothing is pickled."""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from threadpoolctl import threadpool_limits
from torch import Tensor

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig, component
from ..observations import Observation
from ..optim.parameters import aligned

NAMES = {
    "pca": "sklearn.decomposition.IncrementalPCA",
    "ica": "sklearn.decomposition.FastICA",
    "random-projection": "sklearn.random_projection.GaussianRandomProjection",
}


@component("encoder", "pca", estimator="pca")
@component("encoder", "ica", estimator="ica")
@component("encoder", "random-projection", estimator="random-projection")
@component("encoder", "sklearn")
class Classical:
    """A code is what the estimator's `transform` makes of an observation's numbers, as they are (`Observation.rows`).

    Until its first update the estimator is fitted to uniform noise: the untrained arm, and what tells which arrays its state
    is made of. One with `partial_fit` learns from each update's rows. Another is fitted anew to the last `memory` rows; so
    codes of before mean something else then: give it all its rows, and stop.

    Obs (B, *shape) as `observation` has them, codes float32 (B, size). No gradients. `estimator`: one to take instead of the
    one that `config` names, not fitted; a pipeline does. Raises ValueError where it cannot be fitted to such observations, or
    where its fitted attributes are not arrays of sizes that stay.
    """

    class Config(ComponentConfig):
        size: int = Field(32, ge=1, le=4096, description="numbers in a code, where the estimator has n_components")
        estimator: str = Field("pca", description="pca, ica, random-projection, or a name such as sklearn.decomposition.NMF")
        options: dict[str, Any] = Field(default_factory=dict, description="the estimator's own, such as whiten")
        grid_input: Literal["one-hot", "scaled"] = Field(
            "one-hot", description="a grid as planes of 0 and 1, or code / largest code"
        )
        memory: int = Field(4096, ge=2, description="rows to be fitted anew to, for estimators without partial_fit")
        refit_every: int = Field(1, ge=1, description="updates until it is fitted anew, for estimators without partial_fit")

    num_parameters: ClassVar[int] = 0  # none by gradient descent

    def __init__(self, config: Config, observation: Observation, seed: int, estimator: Any = None) -> None:
        self.config, self.observation = config, observation
        self.one_hot = config.grid_input == "one-hot"
        self.seed = np.array(seed, np.int64)
        self.updates, self.seen = np.array(0, np.int64), np.array(0, np.int64)
        self.fresh = _made(config) if estimator is None else copy.deepcopy(estimator)
        self.what = f"encoder classical: {type(self.fresh).__name__}"
        self.incremental, self.can_decode = hasattr(self.fresh, "partial_fit"), hasattr(self.fresh, "inverse_transform")
        options = self.fresh.get_params() if hasattr(self.fresh, "get_params") else {}
        self.random = [k for k, v in options.items() if k.split("__")[-1] == "random_state" and v is None]
        dtype = np.float32 if observation.kind == "vector" else np.uint8
        self.rows = np.zeros((0 if self.incremental else config.memory, *observation.shape), dtype)  # a ring
        self._probe()

    def _probe(self) -> None:
        """Fit to noise, twice: which attributes are arrays of equal sizes, and whether these are enough to rebuild one by."""
        rng = np.random.default_rng([int(self.seed), 2])
        columns = int(np.prod(self.observation.planes(self.one_hot)))
        first, second = (rng.random((2 * self.config.size + 8 + k, columns)) for k in (0, 5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = self._fitted(self._seeded(self.fresh, self._stream(0)), first)
            self.skeleton = self._fitted(self._seeded(self.fresh, self._stream(0) + 1), second)
            a, b = exported(one), exported(self.skeleton)
            self.names = [name for name in a if name in b and a[name].shape == b[name].shape and a[name].dtype == b[name].dtype]
            self.estimator = self._rebuilt({name: a[name] for name in self.names})
            wanted = np.asarray(one.transform(first))
            if not np.allclose(np.asarray(self.estimator.transform(first)), wanted, rtol=1e-6, atol=1e-9):
                raise ValueError(f"{self.what} keeps more than arrays of one size (its training rows?): it cannot be saved")
        self.size = wanted.shape[1]

    def encode(self, obs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        code = np.asarray(self.estimator.transform(self._numbers(obs)), np.float32)
        return torch.from_numpy(np.ascontiguousarray(code))

    def decode(self, code: Tensor) -> Tensor:
        """The observations nearest to the estimator's `inverse_transform`, (B, *shape); ValueError where it has none."""
        if not self.can_decode:
            raise ValueError(f"{self.what} has no inverse_transform: it cannot decode")
        rows = np.asarray(self.estimator.inverse_transform(code.detach().numpy().astype(np.float64)), np.float32)
        return self.observation.unrows(torch.from_numpy(np.ascontiguousarray(rows)), self.one_hot)

    def update(self, obs: Tensor, generator: torch.Generator) -> dict[str, float]:
        """Learn from B observations: one `partial_fit`, or keep them and fit anew when it is time. `warnings`: how many times
        the estimator complained, such as of an iteration that did not converge."""
        self.observation.check(obs)
        self.updates += 1
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            if self.incremental:
                self._learn(self.estimator if self.seen else self.fresh, obs)
                self.seen += len(obs)
            else:
                for part in obs.split(len(self.rows)):
                    self.rows[(int(self.seen) + np.arange(len(part))) % len(self.rows)] = part.numpy()
                    self.seen += len(part)
                if self.updates % self.config.refit_every == 0 and self.seen > self.size:
                    self._learn(self.fresh, torch.from_numpy(self.rows[: int(self.seen)]))
        return {"rows": float(self.seen), "warnings": float(len(complaints))}

    def _learn(self, estimator: Any, obs: Tensor) -> None:
        stream = self._stream(int(self.updates) if self.incremental else 0)  # refits to like rows give like codes
        fitted = exported(self._fitted(self._seeded(estimator, stream), self._numbers(obs)))
        check_arrays({name: fitted[name] for name in self.names if name in fitted}, self._arrays(), self.what)
        self.estimator = self._rebuilt(fitted)

    def _fitted(self, estimator: Any, rows: Array) -> Any:
        try:
            with threadpool_limits(1, "blas"):  # the number of threads may change the last bits
                (estimator.partial_fit if self.incremental else estimator.fit)(rows)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.what}, {len(rows)} rows of {rows.shape[1]} numbers: {str(error).splitlines()[0]}"
            ) from None
        return estimator  # what the methods return is not to be relied on

    def _seeded(self, estimator: Any, stream: int) -> Any:
        """A copy whose random states begin at `stream`: those of its options, and those that earlier fits left in it."""
        estimator = copy.deepcopy(estimator)
        if self.random:
            estimator.set_params(**dict.fromkeys(self.random, stream))
        for part in _parts(estimator).values():
            for name, value in vars(part).items():
                if isinstance(value, np.random.RandomState):
                    setattr(part, name, np.random.RandomState(stream))
        return estimator

    def _rebuilt(self, arrays: dict[str, Array]) -> Any:
        """A fitted estimator with these arrays, the same to the bit whether they come from a fit or from a checkpoint."""
        estimator = copy.deepcopy(self.skeleton)
        parts = _parts(estimator)
        for name in self.names:
            part, attribute = name.split(".", 1)
            array = arrays[name]
            kept = aligned(*array.shape, dtype=array.dtype)
            kept[...] = array
            setattr(parts[part], attribute, kept if array.ndim else array.item())
        return estimator

    def _numbers(self, obs: Tensor) -> Array:
        rows: Array = self.observation.rows(obs, self.one_hot).numpy().astype(np.float64)
        return rows

    def _stream(self, number: int) -> int:
        return int(np.random.default_rng([int(self.seed), 3, number]).integers(2**31))

    def _arrays(self) -> dict[str, Array]:
        found = exported(self.estimator)
        return {name: found[name] for name in self.names}

    def _own(self) -> dict[str, Array]:
        return {"seed": self.seed, "updates": self.updates, "seen": self.seen, "rows": self.rows}

    def state_dict(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self._own().items()} | {
            f"estimator.{name}": array.copy() for name, array in self._arrays().items()
        }

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "encoder classical")
        for name, array in self._own().items():
            array[...] = state[name]
        self.estimator = self._rebuilt({name: np.asarray(state[f"estimator.{name}"]) for name in self.names})


def _made(config: Classical.Config) -> Any:
    """The estimator that the options name, not fitted. ValueError for a name that scikit-learn does not have."""
    path = NAMES.get(config.estimator, config.estimator)
    module, _, name = path.rpartition(".")
    try:
        if not path.startswith("sklearn."):
            raise ImportError
        cls = getattr(importlib.import_module(module), name)
        options = dict(config.options)
        if "n_components" in cls().get_params():
            options.setdefault("n_components", config.size)
        return cls(**options)
    except (ImportError, AttributeError):
        raise ValueError(
            f"encoder classical: no estimator {config.estimator!r}: {', '.join(NAMES)}, or sklearn.MODULE.NAME"
        ) from None
    except TypeError as error:
        raise ValueError(f"encoder classical: {config.estimator}: {error}") from None


def _parts(estimator: Any) -> dict[str, Any]:
    """The estimator by "0", or those of a pipeline by their places."""
    steps = [step for _, step in getattr(estimator, "steps", [("", estimator)])]
    return {str(k): step for k, step in enumerate(steps) if not isinstance(step, str | None)}


def exported(estimator: Any) -> dict[str, Array]:
    """What fitting left in an estimator, or in those of a pipeline, that is numbers: "place.attribute" -> array, C order.

    Single numbers become bool, int64 or float64 ().
    """
    found: dict[str, Array] = {}
    for place, part in _parts(estimator).items():
        options = part.get_params(deep=False) if hasattr(part, "get_params") else {}
        for name, value in vars(part).items():
            if name not in options and isinstance(value, np.ndarray | np.generic | bool | int | float):
                array = np.asarray(value, order="C")
                if array.ndim == 0 and array.dtype.kind in "biuf":
                    array = np.asarray(array.item())
                if array.dtype.kind in "biuf":
                    found[f"{place}.{name}"] = array
    return found
