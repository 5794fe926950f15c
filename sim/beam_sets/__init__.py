"""What beam sets with a guarantee cost: beams swept at a bounded loss, for the models of a run and for baselines."""
