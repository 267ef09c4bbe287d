"""Reinforcement learning: rewards, losses, advantages, rollouts, the replay buffer."""
