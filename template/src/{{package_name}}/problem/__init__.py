"""Yours: the four modules that make this project about your problem."""
