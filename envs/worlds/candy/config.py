"""The dials of candy, what they must not be together, and the named settings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ...world import MOST_STEPS, Preset, WorldConfig
from . import features as f
from .inhabitants import NAMES


class Config(WorldConfig):
    size: int = Field(6, ge=2, le=32, description="rows and columns of the board")
    candies: int = Field(6, ge=1, le=64, description="candies at the start of an episode")
    values: tuple[float, ...] = Field((1.0, 2.0, 5.0), min_length=1, max_length=8, description="value of each kind")
    agents: int = Field(1, ge=1, le=8, description="collectors that learn")
    slip: float = Field(0.1, ge=0, le=1, description="probability that a move goes to one of its two sides")
    view: int = Field(0, ge=0, le=63, description="side of the window around the agent, odd; 0 shows the whole board")
    deadline: int = Field(14, ge=1, le=10_000, description="steps until the game is over; the agent sees the clock")
    time_limit: int = Field(0, ge=0, le=MOST_STEPS, description="steps until an episode is truncated, unseen; 0 means never")
    hidden_kinds: bool = Field(False, description="all kinds look alike in the observation")
    noise: float = Field(0.0, ge=0, le=1, description="probability that a cell of the board is read wrongly")
    owned: bool = Field(False, description="kind j belongs to collector j modulo the number of collectors")
    payoff: tuple[float, float, float, float] = Field(
        (1.0, 1.0, 0.0, 0.0),
        description="share of a candy's value: to the taker if its own, if another's; to each other if the "
        "taker's own, to the owner if another's; every candy is the taker's unless owned",
    )
    regrowth: Literal["none", "iid", "neighbour", "cleaning", "respawn"] = Field(
        "none",
        description="iid: each bare starting cell with grow_rate; neighbour: by candies within distance 2; "
        "cleaning: grow_rate falls with waste; respawn: a taken one appears elsewhere",
    )
    grow_rate: float = Field(0.05, ge=0, le=1, description="probability per step of regrowth iid and cleaning")
    by_neighbours: tuple[float, float, float, float] = Field(
        (0.0, 0.01, 0.05, 0.1), description="probability of regrowth with 0, 1-2, 3-4, more than 4 candies near"
    )
    river: int = Field(1, ge=1, le=16, description="rows at the top that gather waste, with regrowth=cleaning")
    waste_rate: float = Field(0.5, ge=0, le=1, description="probability per step that waste falls on a river cell")
    waste_limit: float = Field(0.4, gt=0, le=1, description="share of the river from which nothing grows")
    change: Literal["fixed", "drift", "seasons", "switch", "reaction"] = Field(
        "fixed",
        description="values: drift: a step of +-change_rate each, reflected at twice the largest; seasons: kinds swap "
        "values every period; switch: they do with probability change_rate, unseen; reaction: each candy taken "
        "by anyone lowers its kind's value by the share change_rate",
    )
    change_rate: float = Field(0.1, ge=0, le=1e6, description="size or probability of a change of values")
    period: int = Field(5, ge=1, le=10_000, description="steps of a season")
    needs: tuple[int, ...] = Field(
        (),
        description="for each kind the sum of levels that takes it; what nobody on its cell can take alone, those who take "
        "it together share by level; empty: 1 each",
    )
    reach: int = Field(0, ge=0, le=4, description="steps from which a collector helps one that stands on a candy")
    most_level: int = Field(1, ge=1, le=8, description="collectors' levels are drawn from 1 to this each episode")
    collision: Literal["share", "block"] = Field("share", description="block: nobody enters a cell that is taken")
    tie: Literal["random", "first", "split", "nobody"] = Field(
        "random",
        description="who gets a candy that two step on who could each take it alone (see needs): the first in random "
        "order, or of the lowest number; all on its cell share it by level; nobody, and it stays",
    )
    zap: int = Field(0, ge=0, le=1000, description="steps that a zap freezes others in range; 0: no such action")
    zap_range: int = Field(1, ge=0, le=62, description="steps that a zap reaches")
    zap_cost: float = Field(0.0, ge=0, le=1e6, description="what a zap costs")
    gift: float = Field(0.0, ge=0, le=1e6, description="reward that a gift hands to the nearest other; 0: no such action")
    signal: bool = Field(False, description="an action that sets a bit which the others see after the step")
    duel: tuple[tuple[float, ...], ...] = Field(
        (), description="payoff of kinds against kinds when two meet, by their inventories; empty: no inventory"
    )
    inhabitants: tuple[Literal[NAMES], ...] = Field(  # type: ignore[valid-type]
        (), max_length=9, description="scripted collectors beside the agents, by name"
    )
    drawn_inhabitants: int = Field(
        0, ge=0, le=7, description="that many inhabitants, their types drawn from `inhabitants` each episode; 0: as listed"
    )
    inhabitants_hidden: bool = Field(True, description="agents do not see the inhabitants' types")

    @field_validator("view")
    @classmethod
    def _odd(cls, view: int) -> int:
        if view and view % 2 == 0:
            raise ValueError(f"view must be odd, so that the agent is in its middle: try {view + 1}")
        return view

    @field_validator("values", "payoff", "duel")
    @classmethod
    def _finite(cls, values: Any) -> Any:
        if not all(abs(v) <= 1e6 for row in values for v in (row if isinstance(row, tuple) else (row,))):
            raise ValueError("values must be finite and at most 1e6 in size")
        return values

    @field_validator("by_neighbours")
    @classmethod
    def _probabilities(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= p <= 1 for p in rates):
            raise ValueError("probabilities of regrowth must be in 0..1")
        return rates

    @property
    def bodies(self) -> int:
        """Collectors on the board, inhabitants included."""
        return self.agents + (self.drawn_inhabitants or len(self.inhabitants))

    @property
    def status_bits(self) -> int:
        """Cells of the status plane that the configuration needs; 0: it has none."""
        kinds, levels = len(self.values), self.most_level if self.most_level > 1 else 0
        shown = self.bodies - self.agents if not self.inhabitants_hidden else 0
        parts = (kinds * (self.change == "seasons"), self.zap > 0, (self.bodies - 1) * self.signal, self.bodies * levels)
        return int(sum(parts) + f.POCKET * kinds * bool(self.duel) + shown * len(NAMES))

    @model_validator(mode="after")
    def _fits_together(self) -> Any:
        kinds, bodies = len(self.values), self.bodies
        if self.drawn_inhabitants and not self.inhabitants:
            raise ValueError("drawn_inhabitants needs types to draw from: name some in inhabitants")
        if bodies > 8:
            raise ValueError(f"{bodies} collectors are more than 8: take fewer agents or inhabitants")
        cells = self.size * self.size - (self.river * self.size if self.regrowth == "cleaning" else 0)
        if self.candies + bodies > cells:
            raise ValueError(
                f"{self.candies} candies and {bodies} agents do not fit on {max(cells, 0)} cells: "
                "take a larger size or fewer candies"
            )
        if self.needs and len(self.needs) != kinds:
            raise ValueError(f"needs has {len(self.needs)} numbers for {kinds} kinds: give one for each")
        if any(not 1 <= need <= bodies * self.most_level for need in self.needs):
            raise ValueError(f"needs must be from 1 to {bodies * self.most_level}, all levels together: more is out of reach")
        alone = self.collision == "block" and self.reach == 0
        if alone and any(need > self.most_level for need in self.needs):
            raise ValueError(
                f"needs above {self.most_level} take two at once, which collision=block and reach=0 rule out: take reach=1"
            )
        if self.duel and (len(self.duel) != kinds or any(len(row) != kinds for row in self.duel)):
            raise ValueError(f"duel must be a square matrix with a row and a column for each of {kinds} kinds")
        if self.change == "drift" and self.change_rate > 2 * max(abs(v) for v in self.values):
            raise ValueError("change_rate of a drift is above twice the largest value: take a smaller one")
        if self.change in ("switch", "reaction") and self.change_rate > 1:
            raise ValueError(f"change_rate is a share or a probability with change={self.change}: take one in 0..1")
        side = self.view or self.size
        if self.status_bits > side * side:
            raise ValueError(
                f"the status plane needs {self.status_bits} cells and has {side * side}: take a larger view or size"
            )
        return self

    @property
    def features(self) -> int:
        """The bits of everything that this configuration uses."""
        o = self
        used = {
            f.PAYOFF: o.payoff != (1.0, 1.0, 0.0, 0.0), f.OWNED: o.owned, f.HIDDEN: o.hidden_kinds, f.NOISE: o.noise > 0,
            f.STATUS: o.status_bits > 0, f.SPOTS: o.regrowth in ("iid", "neighbour", "cleaning") or o.bodies > o.agents,
            f.GROW: o.regrowth in ("iid", "neighbour", "cleaning"), f.NEIGHBOUR: o.regrowth == "neighbour",
            f.CLEANING: o.regrowth == "cleaning", f.RESPAWN: o.regrowth == "respawn",
            f.ENDLESS: o.regrowth != "none" or bool(o.duel), f.DRIFT: o.change == "drift", f.SEASONS: o.change == "seasons",
            f.SWITCH: o.change == "switch", f.REACT: o.change == "reaction",
            f.JOINT: o.tie in ("split", "nobody") or bool(o.needs), f.NOBODY_WINS: o.tie == "nobody", f.SPLIT: o.tie == "split",
            f.LEVELS: o.most_level > 1,
            f.BLOCK: o.collision == "block", f.FIRST: o.tie == "first", f.ZAP: o.zap > 0, f.GIFT: o.gift > 0,
            f.SIGNAL: o.signal,
            f.DUEL: bool(o.duel), f.INHABITED: o.bodies > o.agents, f.DRAWN: o.drawn_inhabitants > 0,
            f.TYPES: o.bodies > o.agents and not o.inhabitants_hidden, f.ALIKE: o.bodies > o.agents and not any(o.values),
        }  # fmt: skip
        bits = sum(bit for bit, on in used.items() if on)
        special = f.PAYOFF | f.CLEANING | f.RESPAWN | f.DRIFT | f.SEASONS | f.SWITCH | f.REACT | f.JOINT | f.DUEL | f.INHABITED
        return bits | (0 if bits & special else f.PLAIN)


RPS = ((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))  # rock, paper, scissors

PRESETS: dict[str, Preset] = {
    "candy-solo": Preset("one collector, three kinds, 14 steps: the defaults", {}),
    "candy-race": Preset(
        "two collectors, zero-sum: what one gets the other loses",
        {"agents": 2, "size": 5, "candies": 5, "payoff": (1.0, 1.0, -1.0, -1.0), "deadline": 12},
    ),
    "coins": Preset(
        "coin game (Lerer & Peysakhovich 2017): +1 for any coin, -2 to the owner of a coin that another takes",
        {"agents": 2, "size": 3, "candies": 1, "values": (1.0, 1.0), "owned": True, "payoff": (1.0, 1.0, 0.0, -2.0),
         "regrowth": "respawn", "slip": 0.0, "deadline": 150},
    ),
    "commons": Preset(
        "common-pool harvest (Perolat et al. 2017): what is eaten bare does not grow again",
        {"agents": 4, "size": 10, "candies": 30, "values": (1.0,), "regrowth": "neighbour", "view": 7, "slip": 0.0,
         "collision": "block", "zap": 10, "zap_range": 2, "deadline": 500},
    ),
    "cleanup": Preset(
        "Clean Up (Hughes et al. 2018): candies grow only while somebody cleans the river",
        {"agents": 4, "size": 10, "candies": 24, "values": (1.0,), "regrowth": "cleaning", "river": 2, "view": 7,
         "slip": 0.0, "deadline": 500},
    ),
    "candy-stag": Preset(
        "stag hunt: a hare is taken alone, a stag, worth ten, by two who stand side by side",
        {"agents": 2, "size": 5, "candies": 4, "values": (1.0, 10.0), "needs": (1, 2), "reach": 1,
         "tie": "split", "regrowth": "respawn", "deadline": 50},
    ),
    "candy-poison": Preset(
        "all candies look alike, a third are poison: where two lie close is as safe as where one does",
        {"values": (1.0, 2.0, -4.0), "hidden_kinds": True},
    ),
    "candy-seasons": Preset(
        "the values of the kinds go round every five steps",
        {"change": "seasons", "period": 5, "candies": 6},
    ),
    "candy-rps": Preset(
        "inventory rock-paper-scissors (after Melting Pot's running with scissors): collect, then meet",
        {"agents": 2, "size": 7, "view": 5, "candies": 12, "values": (0.0, 0.0, 0.0), "duel": RPS,
         "regrowth": "iid", "grow_rate": 0.05, "deadline": 100},
    ),
    "candy-greedy-rival": Preset(
        "one agent against a scripted collector that goes to the nearest candy",
        {"inhabitants": ("greedy",), "size": 5, "candies": 4, "slip": 0.0},
    ),
    "candy-mixed-company": Preset(
        "four agents and two inhabitants whose types are drawn each episode and not shown",
        {"agents": 4, "size": 7, "candies": 12, "deadline": 20, "drawn_inhabitants": 2,
         "inhabitants": ("greedy", "denier", "tit-for-tat", "level-2", "switcher")},
    ),
}  # fmt: skip
