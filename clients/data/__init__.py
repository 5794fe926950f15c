"""What a client senses and stores: modalities, recordings, DeepSense 6G files. No protocol and no model here."""
