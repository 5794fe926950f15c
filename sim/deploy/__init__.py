"""Deployments on real machines: make, check, start and follow them. What the machines compute is not here."""
