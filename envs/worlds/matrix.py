"""Repeated matrix games: two to sixteen players choose at once, are paid by what all chose, and meet again."""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field, field_validator, model_validator

from ...store.arrays import Array
from ..registry import world
from ..rng import unit
from ..world import MOST_STEPS, Game, Model, Preset, Scene, World, WorldConfig, Yardstick, outside, rule

MOST_PLAYERS = 16
MOST_ENTRIES = 2**20  # of a payoff table
MODEL_ENTRIES = 2**18  # states x joint actions x outcomes up to which an exact model is built
SOCIAL = "social optimum: the best mean return of all agents together"

Name = Literal[
    "prisoners-dilemma", "stag-hunt", "chicken", "rock-paper-scissors", "matching-pennies", "public-goods"
]  # fmt: skip
Script = Literal[
    "tit-for-tat", "always-cooperate", "always-defect", "grim", "pavlov", "random", "best-response", "copycat-beater"
]  # fmt: skip

# payoff[own action][other's action] of a symmetric game, or payoff[player][action of player 0][action of player 1]
PAYOFFS: dict[str, Any] = {
    "prisoners-dilemma": ((3, 0), (5, 1)),  # Axelrod 1984, The Evolution of Cooperation, chapter 1
    "stag-hunt": ((4, 0), (3, 3)),  # Skyrms 2004, The Stag Hunt: a hare is safe, a stag needs two
    "chicken": ((3, 1), (4, 0)),  # in the order of Rapoport & Chammah 1966, "The game of chicken": T > R > S > P
    "rock-paper-scissors": ((0, -1, 1), (1, 0, -1), (-1, 1, 0)),
    "matching-pennies": (((1, -1), (-1, 1)), ((-1, 1), (1, -1))),  # player 0 wants equal coins
}
ACTIONS: dict[str, tuple[str, ...]] = {
    "prisoners-dilemma": ("cooperate", "defect"),
    "stag-hunt": ("stag", "hare"),
    "chicken": ("swerve", "straight"),
    "rock-paper-scissors": ("rock", "paper", "scissors"),
    "matching-pennies": ("heads", "tails"),
    "public-goods": ("give", "keep"),
}


class Payoff(NamedTuple):
    """A game in normal form of P players with A actions each: player k gets table[base[k, a_k] + sum_j weight[j, a_j]]."""

    table: Array  # float64 (E,)
    weight: Array  # int64 (P, A)
    base: Array  # int64 (P, A)
    symmetric: bool  # stored by own action and how many others play each

    def of(self, joint: Array) -> Array:
        """What all players get: joint actions, int (..., P) -> float64 (..., P)."""
        players = np.arange(len(self.weight))
        total = self.weight[players, joint].sum(-1, keepdims=True)
        return self.table[self.base[players, joint] + total]


def payoff_of(payoff: Any, players: int) -> Payoff:
    """Read nested numbers as a game of `players` players. Accepted shapes, A actions for each of P players:

    (A, A) for P = 2: payoff[own][other's]; (P, A, ..., A), P + 1 axes: payoff[player][a_0]...[a_P-1]; and for P > 2
    (A, P, ..., P), A axes: payoff[own][others who play 1]...[others who play A - 1], the same for all players.
    Raises ValueError where the shape fits none, in one line.
    """
    values = np.asarray(payoff, np.float64)
    shape, a = values.shape, values.shape[-1]
    if players == 2 and shape == (a, a):
        values = np.stack((values, values.T))
    if values.ndim == players + 1 and values.shape == (players, *[a] * players):
        powers = a ** np.arange(players - 1, -1, -1)
        weight = powers[:, None] * np.arange(a)
        return Payoff(values.ravel(), weight, np.repeat(np.arange(players)[:, None] * a**players, a, 1), False)
    a = shape[0]
    if players > 2 and shape == (a, *[players] * (a - 1)):
        weight = np.append(0, players ** np.arange(a - 2, -1, -1))  # the own action is in the total: base takes it out
        base = np.arange(a) * players ** (a - 1) - weight
        return Payoff(values.ravel(), np.tile(weight, (players, 1)), np.tile(base, (players, 1)), True)
    fits = "(A, A) or (2, A, A)" if players == 2 else f"(2, {players}), (A, {players}, ...) with A axes or ({players}, A, ...)"
    raise ValueError(f"payoff has shape {shape}: {players} players (agents and opponents) with A actions each need {fits}")


def public_goods(players: int, multiplier: float) -> Array:
    """Everybody has 1 and gives or keeps it; gifts are multiplied and shared by all. Shape (2, players): [own][keepers]."""
    keepers = np.arange(players)
    share = multiplier / players
    return np.stack((share * (players - keepers), 1 + share * (players - 1 - keepers)))


def replies(script: str, player: int, game: Payoff) -> Array:
    """A scripted player's rule, uint8 (A + 1, A + 1): [own last action][last action of player 0]; A: no round yet."""
    players, a = game.weight.shape
    table = np.zeros((a + 1, a + 1), np.uint8)
    own, first = np.indices((a, a))
    joint = np.repeat(np.arange(a)[:, None, None], players, 2) + np.zeros((a, a, players), np.int64)  # [others' action]
    joint[:, :, player] = np.arange(a)
    best = game.of(joint)[:, :, player].argmax(1)
    table[:a, :a] = {
        "tit-for-tat": first,
        "always-cooperate": 0 * own,
        "always-defect": 0 * own + a - 1,
        "grim": np.where((own == 0) & (first == 0), 0, a - 1),
        "pavlov": np.where(own == first, 0, a - 1),
        "random": 0 * own,
        "best-response": best[first],
        "copycat-beater": best[own],
    }[script]
    if script == "always-defect":
        table[:] = a - 1
    return table


@world("matrix")
class Matrix(World):
    """Repeated matrix games: prisoner's dilemma, stag hunt, chicken, rock-paper-scissors, public goods, or any payoff.

    Action: one of A, the same for all players. Reward: the payoff of the round. Observation, float32 (P * A + 1,): what
    each of P players did in the last round as one-hot, oneself first and then the next ones in turn (zeros before the
    first round), and the share of `rounds` left (1 where there is no fixed number); or only the share, or a 1 that tells
    nothing. An episode ends after `rounds`, and after each round with probability 1 - `continuation`.

    `opponents` are scripted players behind the agents. All are memory-one strategies (Nowak & Sigmund 1993) of their own
    and player 0's last action; they begin with action 0, which is to cooperate, and to defect is the last action:
    always-cooperate, always-defect; tit-for-tat: player 0's last action; grim: cooperates while both always did; pavlov:
    cooperates if both did the same (win-stay, lose-shift); random; best-response: to player 0's last action;
    copycat-beater: to its own last action, which beats a player that imitates it. With probability `tremble` a scripted
    player plays uniformly at random instead.
    """

    class Config(WorldConfig):
        game: Name = Field("prisoners-dilemma", description="a game by name")
        payoff: tuple[Any, ...] | None = Field(
            None,
            description="own numbers: payoff[own][other], [player][a0][a1]... or [own][others who do 1]",
        )
        multiplier: float = Field(1.6, ge=0, le=1e6, description="what public goods multiply gifts by")
        agents: int = Field(2, ge=1, le=MOST_PLAYERS, description="players that are agents, the first ones")
        opponents: tuple[Script, ...] = Field((), max_length=MOST_PLAYERS - 1, description="scripted players behind them")
        tremble: float = Field(0.0, ge=0, le=1, description="probability that a scripted player acts at random")
        rounds: int = Field(10, ge=0, le=1_000_000, description="rounds of an episode, known to the agents; 0: no fixed number")
        continuation: float = Field(1.0, ge=0, le=1, description="probability that another round follows a round")
        observation: Literal["last", "clock", "none"] = Field("last", description="the last round and the clock, or less")
        time_limit: int = Field(
            0, ge=0, le=MOST_STEPS, description="steps until an episode is truncated, unseen; 0 means never"
        )

        @field_validator("opponents", mode="before")
        @classmethod
        def _one(cls, opponents: Any) -> Any:
            return (opponents,) if isinstance(opponents, str) else opponents

        @field_validator("payoff", mode="before")
        @classmethod
        def _numbers(cls, payoff: Any) -> Any:
            if payoff is None:
                return None
            try:
                values = np.array(payoff, np.float64)
            except (TypeError, ValueError):
                raise ValueError("payoff must be nested lists of numbers, all of equal length, like [[3,0],[5,1]]") from None
            if values.ndim < 2 or values.shape[-1] < 2 or values.shape[0] < 2:
                raise ValueError(f"payoff has shape {values.shape}: two players and two actions, like [[3,0],[5,1]], at least")
            if values.size > MOST_ENTRIES or max(values.shape) > 64:
                raise ValueError(f"payoff has shape {values.shape}: at most {MOST_ENTRIES:,} numbers and 64 actions")
            if not (np.abs(values) <= 1e6).all():
                raise ValueError("payoffs must be finite and at most 1e6 in size")
            return _nested(values.tolist())

        @model_validator(mode="after")
        def _players(self) -> Any:
            players = self.agents + len(self.opponents)
            if not 2 <= players <= MOST_PLAYERS:
                way = "add opponents=tit-for-tat or take agents=2" if players < 2 else "take fewer agents or opponents"
                raise ValueError(f"a game has 2 to {MOST_PLAYERS} players, agents and opponents make {players}: {way}")
            if self.payoff is not None:
                payoff_of(self.payoff, players)
            elif players > 2 and self.game != "public-goods":
                raise ValueError(
                    f"{self.game} is a game of 2, agents and opponents make {players}: take game=public-goods or a payoff"
                )
            if not self.rounds and self.continuation == 1 and not self.time_limit:
                raise ValueError("an episode would never end: set rounds, continuation below 1 or time_limit")
            return self

    presets = {
        "rock-paper-scissors": Preset("Two players, zero-sum: the equilibrium is uniform", {"game": "rock-paper-scissors"}),
        "matching-pennies": Preset("Two players, zero-sum: one wants equal coins", {"game": "matching-pennies"}),
        "prisoners-dilemma": Preset("Axelrod's iterated prisoner's dilemma, 10 rounds", {"game": "prisoners-dilemma"}),
        "stag-hunt": Preset("Two hunters: together for the stag, or a safe hare each", {"game": "stag-hunt"}),
        "chicken": Preset("Two drivers: who swerves loses little, a crash costs both", {"game": "chicken"}),
        "public-goods": Preset("Four players give to a pot that all share, or keep", {"game": "public-goods", "agents": 4}),
        "ipd-tit-for-tat": Preset(
            "Iterated prisoner's dilemma against tit-for-tat", {"agents": 1, "opponents": ("tit-for-tat",)}
        ),
    }

    class State(NamedTuple):
        last: Array  # uint8 (N, P): actions of the last round; A: there was none
        round: Array  # int32 (N,): rounds done

    class Constants(NamedTuple):
        players: int
        agents: int
        actions: int
        noisy: bool  # a scripted player draws random numbers
        seen: int  # 0: nothing, 1: the clock, 2: the last round too
        rounds: int
        share: float  # 1 / rounds
        continuation: float
        table: Array  # float64 (E,): see Payoff
        weight: Array  # int64 (P, A)
        base: Array  # int64 (P, A)
        reply: Array  # uint8 (P, A + 1, A + 1): see replies
        tremble: Array  # float64 (P,)

    static = ("players", "agents", "actions")

    @cached_property
    def _payoff(self) -> Payoff:
        o = self.config
        players = self._players
        if o.payoff is not None:
            return payoff_of(o.payoff, players)
        return payoff_of(public_goods(players, o.multiplier) if o.game == "public-goods" else PAYOFFS[o.game], players)

    @property
    def _players(self) -> int:
        return int(self.config.agents) + len(self.config.opponents)

    @property
    def _actions(self) -> int:
        return int(self._payoff.weight.shape[1])

    @property
    def num_agents(self) -> int:
        return int(self.config.agents)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        size = self._players * self._actions + 1 if self.config.observation == "last" else 1
        return gymnasium.spaces.Box(0, 1, (size,), np.float32)

    @property
    def others_seen(self) -> slice | None:
        """Where an observation tells what the other players did last: agents may be kept from seeing it."""
        return slice(self._actions, self._players * self._actions) if self.config.observation == "last" else None

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self._actions)

    @property
    def horizon(self) -> int:
        return min((bound for bound in (self.config.rounds, self.config.time_limit) if bound), default=0)

    def allocate(self, n: int) -> State:
        return self.State(np.full((n, self._players), self._actions, np.uint8), np.zeros(n, np.int32))

    def _tremble(self) -> Array:
        """Probability of a random action for each player, float64 (P,); agents have none."""
        o = self.config
        return np.array([0.0] * o.agents + [1.0 if script == "random" else o.tremble for script in o.opponents])

    def _replies(self) -> Array:
        o, a = self.config, self._actions
        table = np.zeros((self._players, a + 1, a + 1), np.uint8)
        for j, script in enumerate(o.opponents, o.agents):
            table[j] = replies(script, j, self._payoff)
        return table

    def constants(self) -> Constants:
        o, p, tremble = self.config, self._payoff, self._tremble()
        return self.Constants(
            self._players, o.agents, self._actions, bool(tremble.any()), ("none", "clock", "last").index(o.observation),
            o.rounds, 1 / o.rounds if o.rounds else 0.0, o.continuation, p.table, p.weight, p.base, self._replies(), tremble,
        )  # fmt: skip

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        for j in range(c.players):
            s.last[i, j] = c.actions
        s.round[i] = 0

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        total = 0  # place of the joint action in the payoff table
        first = s.last[i, 0]
        for j in range(c.agents, c.players):
            a = np.int64(c.reply[j, s.last[i, j], first])
            if c.noisy:
                u = unit(rng, i)
                if u < c.tremble[j]:  # then u / tremble is uniform again
                    a = min(np.int64(u / c.tremble[j] * c.actions), c.actions - 1)
            s.last[i, j] = a
            total += c.weight[j, a]
        for k in range(c.agents):
            s.last[i, k] = action[k]
            total += c.weight[k, action[k]]
        for k in range(c.agents):
            reward[k] = c.table[c.base[k, action[k]] + total]
        s.round[i] += 1
        over = c.rounds > 0 and s.round[i] >= c.rounds
        if c.continuation < 1.0:
            over = (unit(rng, i) >= c.continuation) or over
        return over

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        left = (c.rounds - s.round[i]) * c.share if c.rounds > 0 else 1.0
        if c.seen == 2:
            for j in range(c.players):
                other = k + j if k + j < c.players else k + j - c.players
                for a in range(c.actions):
                    out[j * c.actions + a] = 1.0 if s.last[i, other] == a else 0.0
            out[c.players * c.actions] = left
        elif c.seen == 1:
            out[0] = left
        else:
            out[0] = 1.0

    def check_state(self, s: Any) -> str | None:
        wrong = outside(s.last, 0, self._actions) or outside(s.round, 0, self.config.rounds or MOST_STEPS)
        return "last or round is out of bounds" if wrong else None

    def scene(self, s: Any, i: int) -> Scene:
        o = self.config
        known = ACTIONS[o.game] if len(ACTIONS[o.game]) == self._actions else ()
        names = known or tuple(f"action {a}" for a in range(self._actions))
        of = f" of {o.rounds}" if o.rounds else ""
        if (s.last[i] >= self._actions).any():
            none = tuple((f"{k}", 0.0) for k in range(self._players))
            return Scene(np.empty((0, 0), "<U1"), bars=none, caption=f"round 0{of}")
        got, table = self._payoff.of(s.last[i].astype(np.int64)), self._payoff.table
        height = (got - table.min()) / max(float(np.ptp(table)), 1e-300)
        bars = tuple((f"{k} {names[a]}", float(h)) for k, (a, h) in enumerate(zip(s.last[i], height, strict=True)))
        paid = ", ".join(f"{value:g}" for value in got)
        return Scene(np.empty((0, 0), "<U1"), bars=bars, caption=f"round {s.round[i]}{of}, payoffs {paid}")

    # --- exact solutions

    def _outcomes(self) -> int:
        """How many outcomes a joint action of the agents has in the exact model."""
        scripted = self._actions ** len(self.config.opponents) if self._tremble().any() else 1
        return scripted * (2 if self.config.continuation < 1 else 1)

    def _fits(self) -> bool:
        """Whether the exact model is small enough. Its states are the last rounds: all joint actions, and none."""
        a, p = self._actions, self._players
        return (a**p + 1) * a**self.config.agents * self._outcomes() <= MODEL_ENTRIES

    def _tables(self) -> tuple[Array, Array, Array, Array]:
        """Next state, probability and end (S, J, K), reward (S, J, K, agents) for J joint actions of the agents.

        State number: the last round's actions as digits to base A, player 0's first; A^P: there was none yet.
        """
        o, a, p = self.config, self._actions, self._players
        joints = a**o.agents
        states = a**p + 1
        digits = np.append(_digits(a, p), np.full((1, p), a), 0)  # (S, P)
        answers = self._replies()[np.arange(p), digits, digits[:, :1]][:, o.agents :].astype(np.int64)  # (S, opponents)
        tremble = self._tremble()[o.agents :]
        chosen = _digits(a, len(o.opponents))[None] if tremble.any() else answers[:, None]  # (1 or S, K, opponents)
        chosen = np.broadcast_to(chosen, (states, *chosen.shape[1:]))
        match = chosen == answers[:, None]
        law = np.where(tremble.any(), tremble / a + (1 - tremble) * match, 1.0).prod(2)  # (S, K)
        k = chosen.shape[1]
        joint = np.zeros((states, joints, k, p), np.int64)
        joint[..., : o.agents] = _digits(a, o.agents)[None, :, None]
        joint[..., o.agents :] = chosen[:, None]
        next_state = joint @ a ** np.arange(p - 1, -1, -1)
        probability = np.broadcast_to(law[:, None], next_state.shape)
        reward = self._payoff.of(joint)[..., : o.agents]
        terminated = np.full(next_state.shape, o.rounds == 1)
        if o.continuation < 1:
            next_state, reward = np.concatenate((next_state, next_state), 2), np.concatenate((reward, reward), 2)
            probability = np.concatenate((probability * o.continuation, probability * (1 - o.continuation)), 2)
            terminated = np.concatenate((terminated, np.ones_like(terminated)), 2)
        return next_state, np.ascontiguousarray(probability), terminated, reward

    def _fields(self) -> dict[str, Array]:
        digits = _digits(self._actions, self._players)
        return {"last": np.append(digits, np.full((1, self._players), self._actions), 0).astype(np.uint8)}

    def _number(self, s: Any, i: int) -> int:
        a, last = self._actions, s.last[i].astype(np.int64)
        return int(a**self._players if (last >= a).any() else last @ a ** np.arange(self._players - 1, -1, -1))

    def model(self, s: Any, i: int) -> Model | None:
        """For one agent among scripted players: the states are the joint actions of the last round, and none."""
        if self.config.agents != 1 or not self._fits():
            return None
        next_state, probability, terminated, reward = self._tables()
        return Model(next_state, probability, reward[..., 0], terminated, self._number(s, i), self._fields())

    def game(self, s: Any, i: int) -> Game | None:
        """For two agents, with or without scripted players; the states as in `model`."""
        if self.config.agents != 2 or not self._fits():
            return None
        next_state, probability, terminated, reward = self._tables()
        a, (states, _, k) = self._actions, next_state.shape
        shape = (states, a, a, k)
        return Game(
            next_state.reshape(shape), probability.reshape(shape), reward.reshape(*shape, 2), terminated.reshape(shape),
            self._number(s, i), self._fields(),
        )  # fmt: skip

    @property
    def _zero_sum(self) -> bool:
        """Two agents alone whose payoffs cancel out."""
        half = len(self._payoff.table) // 2
        alone = self._players == self.config.agents == 2
        return alone and not np.any(self._payoff.table[:half] + self._payoff.table[half:])

    @property
    def solver(self) -> str:
        o = self.config
        if o.agents == 1 or o.opponents:
            return "dynamic programming" if self._fits() else ""
        return "linear programming" if self._zero_sum else "enumeration"

    def _rounds(self) -> float:
        """Expected rounds of an episode."""
        d, most = self.config.continuation, self.horizon
        if d == 1:
            return float(most)
        return (1 - d**most) / (1 - d) if most else 1 / (1 - d)

    def yardstick(self, s: Any) -> Yardstick | None:
        """Two agents, zero-sum: the value of the game for player 0. Several agents else: their best mean return together.

        A repeated game's equilibria are many (the folk theorem), so the social optimum is a bound for all of them.
        One agent among scripted players: None, its `model` tells.
        """
        o, n = self.config, len(s.round)
        if o.agents == 1 or not self.solver:
            return None
        if o.opponents:  # the agents as one controller of all their actions
            from ..solvers.mdp import evaluate_policy, finite_horizon, value_iteration

            next_state, probability, terminated, reward = self._tables()
            model = Model(next_state, probability, reward.mean(-1), terminated, self._number(s, 0), self._fields())
            start, most = model.start, self.horizon
            best = finite_horizon(model, most).value[0, start] if most else value_iteration(model).value[start]
            lazy = evaluate_policy(model, None, most or None)[start]
            return Yardstick(np.full(n, lazy), np.full(n, best), SOCIAL)
        p, player = self._payoff, -1
        if self._zero_sum:
            from ..solvers.games import zero_sum

            matrix = p.table[: len(p.table) // 2].reshape(self._actions, self._actions)
            lazy, best, meaning = matrix.mean(), zero_sum(matrix).value, "value of the game for player 0"
            player = 0
        elif p.symmetric:  # who plays what does not matter, only how many
            counts = np.array(list(itertools.combinations_with_replacement(range(self._actions), self._players)))
            mean = p.of(counts).mean(1)
            faculty = np.cumprod([1, *range(1, self._players + 1)], dtype=np.float64)
            ways = faculty[-1] / faculty[(counts[:, :, None] == np.arange(self._actions)).sum(1)].prod(1)
            lazy, best, meaning = mean @ ways / self._actions**self._players, mean.max(), SOCIAL
        else:
            mean = p.table.reshape(self._players, -1).mean(0)
            lazy, best, meaning = mean.mean(), mean.max(), SOCIAL
        return Yardstick(np.full(n, lazy * self._rounds()), np.full(n, best * self._rounds()), meaning, player)


def _digits(base: int, places: int) -> Array:
    """All numbers of `places` digits, int64 (base^places, places), the first digit the most significant."""
    return np.indices((base,) * places).reshape(places, -1).T if places else np.zeros((1, 0), np.int64)


def _nested(values: Any) -> Any:
    return tuple(_nested(v) for v in values) if isinstance(values, list) else values
