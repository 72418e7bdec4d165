"""Looking inside trained agents: predictions of world models, parts, tables."""
