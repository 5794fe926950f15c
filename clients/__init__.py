"""A client, which is a sensor that learns: profile, student, memory, ClientApp. No aggregation and no teacher here."""
