"""What a client does with each kind of knowledge: it digests what came, answers the request and saves its state."""
