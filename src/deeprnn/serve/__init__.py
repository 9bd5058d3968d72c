"""A service that writes: a page and an API for trained models.

    request -> app (fields, limits) -> engine (one thread a model: reads prefixes, steps all texts at once) -> answer
"""
