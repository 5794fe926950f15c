"""The synthetic street: traffic, site, 60 GHz channel, sensors, faults, an optional ray tracer. No files are here."""
