"""What streams of experience remember between rollouts: transitions that wait for their successors, and eligibility traces."""

from __future__ import annotations

import numpy as np

from ...store.arrays import Array
from .kernel import inner
from .table import check_indices

LEAST = 1e-17  # an eligibility below it would change no digit


class Held:
    """For each of B streams a list of (row, action, number): steps of the running episode, oldest first, or eligibilities."""

    def __init__(self) -> None:
        self.length: Array = np.zeros(0, np.int64)  # (B,)
        self.row: Array = np.zeros((0, 1), np.int64)  # (B, room)
        self.action: Array = np.zeros((0, 1), np.int64)
        self.number: Array = np.zeros((0, 1))

    def reserve(self, streams: int, more: int) -> None:
        """Room for `more` entries in each of `streams` streams; streams of another number begin anew."""
        if len(self.length) != streams:
            self.length = np.zeros(streams, np.int64)
            self.row, self.action, self.number = (np.zeros((streams, 1), kind) for kind in (np.int64, np.int64, np.float64))
        room, needed = self.row.shape[1], int(self.length.max(initial=0)) + more
        if needed > room:
            wider = ((0, 0), (0, max(needed, 2 * room) - room))
            self.row, self.action, self.number = (np.pad(a, wider) for a in (self.row, self.action, self.number))

    def state(self) -> dict[str, Array]:
        """Flat: all streams' entries behind each other."""
        used = np.arange(self.row.shape[1]) < self.length[:, None]
        entries = {"row": self.row[used], "action": self.action[used], "number": self.number[used]}
        return {"streams/length": self.length.copy()} | {f"held/{name}": array for name, array in entries.items()}

    def load(self, state: dict[str, Array], rows: int, actions: int) -> None:
        """Put back what `state` gave. Raises ValueError where the lists do not add up, or point beyond a table of `rows`."""
        check_indices(state, held__row=rows, held__action=actions)
        length = state["streams/length"]
        if (
            (length < 0).any()
            or length.sum() != len(state["held/row"])
            or (np.minimum(state["held/row"], state["held/action"]) < 0).any()
        ):
            raise ValueError("held entries and the streams' lengths do not add up: is the checkpoint whole?")
        self.length = np.zeros(0, np.int64)
        self.reserve(len(length), int(length.max(initial=0)))
        self.length[:] = length
        used = np.arange(self.row.shape[1]) < self.length[:, None]
        self.row[used], self.action[used] = state["held/row"], state["held/action"]
        self.number[used] = state["held/number"]


@inner
def credit(
    value: Array, visits: Array, length: Array, held_row: Array, held_action: Array, eligibility: Array, b: int, s: int, a: int,
    replacing: bool, delta: float, decay: float, learning_rate: float, omega: float,
) -> None:  # fmt: skip
    """One step of TD(lambda), backward view (Sutton & Barto 2018, section 12.2; replacing: Singh & Sutton 1996):

    E(S, A) <- E(S, A) + 1 (replacing: 1); for all s, a:
    V(s, a) <- V(s, a) + alpha delta E(s, a);  E(s, a) <- gamma lambda E(s, a).
    """
    visits[s, a] += 1
    found, kept = False, 0
    for k in range(length[b] + 1):
        if k == length[b]:
            if found:
                break
            row, act, e = s, a, 1.0
        else:
            row, act, e = held_row[b, k], held_action[b, k], eligibility[b, k]
            if row == s and act == a:
                found = True
                e = 1.0 if replacing else e + 1.0
        alpha = learning_rate if omega == 0.0 else learning_rate / np.float64(visits[row, act]) ** omega
        value[row, act] += alpha * delta * e
        e *= decay
        if e > LEAST:
            held_row[b, kept], held_action[b, kept], eligibility[b, kept] = row, act, e
            kept += 1
    length[b] = kept
