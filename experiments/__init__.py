"""Everything that runs, compares, shows and measures agents."""
