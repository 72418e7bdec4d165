"""Adapters that put the components of `core_ml`, and other libraries' models, into the slots of an agent."""
