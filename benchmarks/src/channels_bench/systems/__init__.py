"""Adapters: one small class for each system that is measured."""
