"""What a client does with each kind of knowledge: digests what came, answers what was asked, remembers what it must."""
