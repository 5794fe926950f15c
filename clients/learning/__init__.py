"""How a tracker learns and is scored: tasks, learner, lessons, calibration, metrics, density. No protocol here."""
