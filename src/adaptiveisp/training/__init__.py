"""Learning a policy: the trainer, its configuration and logs, pseudo-labels."""
