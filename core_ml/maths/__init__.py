"""Mathematics without state: returns, losses, two-hot codes, divergences, searches."""
