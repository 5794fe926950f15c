"""Trackers of experiments, such as TensorBoard and MLflow: they are told what a run's folder says, and never asked."""
