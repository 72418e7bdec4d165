"""What the rooms of candy have in common: codes on the board, and the bits of `c.features`."""

from __future__ import annotations

POCKET = 4  # candies of a kind that fit into a collector's inventory
NOBODY = 254  # marks a collector's cell while candies are laid
OUTSIDE = 255  # board code of the rim beyond the board, as wide as a window's half

# What a configuration uses, bits of `features`.
PLAIN = 1  # a candy pays its value to whoever takes it, and that is all
PAYOFF, OWNED, HIDDEN, NOISE, STATUS = 2, 4, 8, 16, 32
SPOTS, GROW, NEIGHBOUR, CLEANING, RESPAWN, ENDLESS = 64, 128, 256, 512, 1024, 2048
DRIFT, SEASONS, SWITCH, REACT = 4096, 8192, 16384, 32768
JOINT, NOBODY_WINS, LEVELS, BLOCK, FIRST, SPLIT = 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 29
ZAP, GIFT, SIGNAL, DUEL, INHABITED, DRAWN, TYPES = 1 << 21, 1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 26, 1 << 27
ALIKE = 1 << 28  # there are inhabitants, and no kind has a value to tell it from another
