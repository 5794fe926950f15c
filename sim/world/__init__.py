"""The synthetic street: traffic, site, 60 GHz channel, camera, radar, LiDAR, GPS and faults; a ray tracer beside it."""
