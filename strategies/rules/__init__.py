"""The aggregation rules, weighted and robust ones. They need numpy only, neither Flower nor torch."""
