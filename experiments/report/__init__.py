"""Pages, charts and pictures of runs."""
