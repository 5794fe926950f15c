"""Aggregation rules beyond the simplest: weighted ones and robust ones. Numpy only; here is no Flower and no torch."""
