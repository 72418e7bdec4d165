"""CMA-ES: minimise a function of n numbers by drawing from a normal distribution that learns where, how far and in which
directions to search (Hansen 2016, "The CMA evolution strategy: a tutorial", arXiv:1604.00772; equations are numbered as there).

Why not the package cma: its strategy draws from numpy's global generator and lives in checkpoints as a pickle. Here all draws
come from a generator that is handed in, and the state is a few arrays. A test compares the two where cma is installed.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from ...store.arrays import Array, check_arrays


class CMAES:
    """ask: x_i = m + sigma y_i, y_i ~ N(0, C), i = 1 .. lambda;  tell: values f_i of them, the lower the better.

    With the x_i sorted by value, w_i the weights of ranks, <y> = sum_{i <= mu} w_i y_i:

    m <- m + sigma <y>                                                                                          (42)
    p_s <- (1 - c_s) p_s + sqrt(c_s (2 - c_s) mu_eff) C^{-1/2} <y>                                              (43)
    sigma <- sigma exp(c_s / d_s (|p_s| / E|N(0, I)| - 1))                                                      (44)
    p_c <- (1 - c_c) p_c + h sqrt(c_c (2 - c_c) mu_eff) <y>                                                     (45)
    C <- (1 + c_1 (1 - h) c_c (2 - c_c) - c_1 - c_mu sum_j w_j) C + c_1 p_c p_c' + c_mu sum_i w_i' y_i y_i'     (47)

    h is 0 while sigma still grows fast. Bad ranks have negative weights, for which w_i' = w_i n / |C^{-1/2} y_i|^2 (46). All
    constants are the tutorial's defaults. C is decomposed as often as keeps that work below a tenth of the updates' own.
    """

    def __init__(self, mean: Array, sigma: float, population: int = 0) -> None:
        """Begin at `mean`, float (n,), with deviation `sigma` in each direction; `population` 0: 4 + floor(3 ln n)."""
        n = self.n = len(mean)
        size = self.population = population or 4 + int(3 * math.log(n))
        if size < 2 or not sigma > 0:
            raise ValueError(f"CMA-ES: a population of {size} with deviation {sigma}: at least 2, above 0")
        raw = math.log((size + 1) / 2) - np.log(np.arange(1, size + 1))  # (49)
        good, bad = raw[: size // 2], raw[size // 2 :]
        self.mu, self.mu_eff = len(good), good.sum() ** 2 / (good**2).sum()
        mu_bad = bad.sum() ** 2 / (bad**2).sum() if (bad != 0).any() else 0.0
        e = self.mu_eff
        self.c_s = (e + 2) / (n + e + 5)  # (55)
        self.d_s = 1 + 2 * max(0.0, math.sqrt((e - 1) / (n + 1)) - 1) + self.c_s
        self.c_c = (4 + e / n) / (n + 4 + 2 * e / n)  # (56)
        self.c_1 = 2 / ((n + 1.3) ** 2 + e)  # (57)
        self.c_mu = min(1 - self.c_1, 2 * (0.25 + e + 1 / e - 2) / ((n + 2) ** 2 + e))  # (58)
        most = min(  # (50) - (52): the negative weights together
            1 + self.c_1 / self.c_mu, 1 + 2 * mu_bad / (e + 2), (1 - self.c_1 - self.c_mu) / (n * self.c_mu)
        )  # fmt: skip
        self.weights = np.where(raw >= 0, raw / raw[raw > 0].sum(), most * raw / max(-raw[raw < 0].sum(), 1e-300))  # (53)
        self.expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # E|N(0, I)|
        self.period = max(1, int(1 / (10 * n * (self.c_1 + self.c_mu))))  # updates between decompositions
        self.mean, self.sigma = np.array(mean, np.float64), np.array(float(sigma))
        self.C, self.B, self.D = np.eye(n), np.eye(n), np.ones(n)  # C = B diag(D^2) B' when last decomposed
        self.p_s, self.p_c, self.updates = np.zeros(n), np.zeros(n), np.array(0)

    def ask(self, generator: torch.Generator) -> Array:
        """float64 (population, n)."""
        z = torch.randn(self.population, self.n, dtype=torch.float64, generator=generator).numpy()
        with one_thread():
            return self.mean + self.sigma * (z * self.D) @ self.B.T

    def tell(self, x: Array, value: Array) -> None:
        """Learn from what `ask` gave and its values (population,), the lower the better; what is no number counts as worst."""
        n, w = self.n, self.weights
        y = (x[np.argsort(value, kind="stable")] - self.mean) / self.sigma
        with one_thread():
            white = y @ self.B / self.D @ self.B.T  # C^{-1/2} y
            step = w[: self.mu] @ y[: self.mu]
            self.mean += self.sigma * step
            self.p_s += (
                math.sqrt(self.c_s * (2 - self.c_s) * self.mu_eff) * (w[: self.mu] @ white[: self.mu]) - self.c_s * self.p_s
            )
            length = float(np.linalg.norm(self.p_s))
            self.updates += 1
            settled = math.sqrt(1 - (1 - self.c_s) ** (2 * int(self.updates)))
            h = length / settled < (1.4 + 2 / (n + 1)) * self.expected
            self.p_c += h * math.sqrt(self.c_c * (2 - self.c_c) * self.mu_eff) * step - self.c_c * self.p_c
            scaled = np.where(w >= 0, w, w * n / np.maximum((white**2).sum(1), 1e-300))
            keep = 1 + self.c_1 * (not h) * self.c_c * (2 - self.c_c) - self.c_1 - self.c_mu * w.sum()
            self.C *= keep
            self.C += self.c_1 * np.outer(self.p_c, self.p_c) + self.c_mu * (y.T * scaled) @ y
            self.sigma *= math.exp(min(1.0, self.c_s / self.d_s * (length / self.expected - 1)))
            if int(self.updates) % self.period == 0:
                self.C[...] = (self.C + self.C.T) / 2
                square, self.B[...] = np.linalg.eigh(self.C)
                self.D[...] = np.sqrt(np.maximum(square, 1e-20))

    def state_dict(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self._parts().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self._parts(), "CMA-ES")
        for name, array in self._parts().items():
            array[...] = state[name]

    def _parts(self) -> dict[str, Array]:
        names = ("mean", "sigma", "C", "B", "D", "p_s", "p_c", "updates")
        return {name: getattr(self, name) for name in names}


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all libraries that are loaded, which takes longer than a small update


def one_thread() -> Any:
    """For products of matrices: the number of threads may change the last bits."""
    return _blas().limit(limits=1, user_api="blas")
