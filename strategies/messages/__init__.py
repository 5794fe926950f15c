"""What travels between server and clients, who is there, and what is recorded of it. No knowledge of any method."""
