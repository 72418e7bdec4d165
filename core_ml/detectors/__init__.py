"""Slot `detector`: does this episode look like the ones of before?"""
