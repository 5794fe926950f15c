"""Real clients on separate machines: provisioning, checking, starting, following."""
