"""Federations on disk: plan, generate, convert, cut, export and inspect them. How a client reads them is not here."""
