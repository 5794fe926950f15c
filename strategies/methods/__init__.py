"""The methods of federated distillation and their baselines: what is asked, accepted and concluded in a round."""
