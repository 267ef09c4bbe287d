"""Ways to learn a policy, by name."""

METHODS = ("actor_critic",)
"""Names for `train --method`; each is a file here."""
