"""A run while it lasts: what its folder says, on a terminal and on a page of this machine. Nothing here writes."""
