"""The folder of which the guides taught `clients.sensing.streaming`; what was here is in data, models and learning."""
