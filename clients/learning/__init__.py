"""How a tracker learns and is judged: learner, lessons, calibration, metrics, density. No Flower and no protocol."""
