"""How a tracker learns and is scored: learner, lessons, calibration, metrics, density. No Flower, no protocol here."""
