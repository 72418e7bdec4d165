"""Adapters that put components of core_ml into the slots of agents."""
