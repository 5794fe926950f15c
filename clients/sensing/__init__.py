"""What a client senses: modalities, the on-disk recording, DeepSense 6G, encoders, beam metrics. No Flower, no protocol."""
