"""What lies on disk: run folders, checkpoints, JSON, arrays and generator states. Nobody else reads or writes a run's
files."""
