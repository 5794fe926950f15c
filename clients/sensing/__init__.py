"""The old folder of `LiveTracker`, kept for code that follows the guides; the rest is in data, models and learning."""
