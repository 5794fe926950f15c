"""The methods of federated distillation and what they are compared with: what is asked, accepted and concluded."""
