"""A sensor that learns: profile, student, training, memory and its ClientApp. Not here: aggregation, the teacher."""
