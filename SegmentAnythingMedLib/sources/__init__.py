"""Prompt sources: where prompts come from when nobody clicks. Every source is a file in this folder.

Each gives ordinary prompts that the user can see, edit and delete; `source` says what a source is handed and finds
them by name.
"""
