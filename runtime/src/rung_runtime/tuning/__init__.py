"""Tuning: `ml tune` searches the params of the estimator, and shows whether better ones exist."""
