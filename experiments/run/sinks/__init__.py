"""Places that get a copy of a run's metrics: TensorBoard, Weights & Biases."""
