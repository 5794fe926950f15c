"""What a client senses and keeps: modalities, recordings, DeepSense 6G files. Here is no protocol and no model."""
