"""Shapley values: exact, sampled with intervals, by permutation, and in closed form for trees and linear models."""
