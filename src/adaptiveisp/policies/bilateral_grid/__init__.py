"""The policy that predicts a bilateral grid of colour transforms."""
