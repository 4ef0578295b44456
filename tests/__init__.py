"""Tests of the template: one folder per promise."""
