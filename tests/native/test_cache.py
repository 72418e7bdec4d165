"""A kernel that lies on disk is loaded without what numba needs to compile, and compiling still works afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys
import numba
import numpy as np
from gumdrop.native.cache import is_cached, keep_on_disk


def doubled(a):  # allocates
    b = a.copy()
    b += a
    return b


def products(a):  # calls a BLAS
    return a @ a, np.linalg.inv(a)


kernels = [keep_on_disk(numba.njit(function), "key-of-this-test") for function in (doubled, products)]
print([is_cached(kernel) for kernel in kernels])
a = np.array([[2.0, 1.0], [0.0, 4.0]])
print(kernels[0](a).tolist())
print("numba.np.npyimpl" in sys.modules, "scipy.linalg" in sys.modules)
print([b.tolist() for b in kernels[1](a)])
print(round(numba.njit(lambda a: np.linalg.det(a @ a))(a), 6))
"""
DOUBLED = "[[4.0, 2.0], [0.0, 8.0]]"
RESULT = ["[[[4.0, 6.0], [0.0, 16.0]], [[0.5, -0.125], [0.0, 0.25]]]", "64.0"]


def test_loading_needs_no_compiler(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(CODE)
    lines = []
    for _ in range(2):
        env = {**os.environ, "GUMDROP_CACHE": str(tmp_path)}
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines())
    assert lines == [
        ["[False, False]", DOUBLED, "True True", *RESULT],
        ["[True, True]", DOUBLED, "False False", *RESULT],
    ]
