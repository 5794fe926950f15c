"""What the world costs, what can be learned in it, and how close it is to measurement and ray tracing."""
