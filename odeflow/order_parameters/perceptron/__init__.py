"""The perceptron under attack: one linear unit, the seed's model and its variants."""
