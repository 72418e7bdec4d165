"""scipy's linear algebra is imported when a kernel wants it, not before, and works then."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import numba
import numpy as np
from gumdrop.envs.registry import make

make("candy", num_envs=4, seed=0)
print("scipy.linalg" in sys.modules)


@numba.njit
def products(a):
    return a @ a, np.linalg.inv(a)


square, inverse = products(np.array([[2.0, 1.0], [0.0, 4.0]]))
print(square.tolist(), inverse.tolist())
"""


def test_kernels_that_multiply_matrices_find_their_blas() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False", "[[4.0, 6.0], [0.0, 16.0]] [[0.5, -0.125], [0.0, 0.25]]"], done.stderr
