"""What a client senses: modalities, recordings, DeepSense 6G, encoders, beam metrics. No Flower, no protocol."""
