"""The benchmark of speed: rounds of Softbeam beside the same work in stock Flower and in two plain processes."""
