"""Collecting rollouts: step by step, in one native call, on a device, or by another library's loop."""
