"""The perceptron's equations expanded around a trajectory: derivatives by parameters, and fluctuations at finite N."""
