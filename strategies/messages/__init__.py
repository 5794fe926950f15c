"""The messages between server and clients, the roster of clients, the records of a round. Nothing knows a method."""
