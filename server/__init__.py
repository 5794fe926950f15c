"""The server: the central teacher, the phases of a run, checkpoint, recorder, status, metrics and the ServerApp."""
