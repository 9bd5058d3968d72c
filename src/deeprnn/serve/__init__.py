"""A service that writes: a page and an API for trained models."""
