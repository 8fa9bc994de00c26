"""Figures of merit, and the evaluation that computes them."""
