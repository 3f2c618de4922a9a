"""Runners: whoever executes a plan. A real model, scripted tokens, or a recorded trace."""
