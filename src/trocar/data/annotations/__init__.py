"""Masks as annotation tools write them, outlines and run lengths, and what their readers and writers share."""
