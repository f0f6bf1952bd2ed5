"""Describes the API in OpenAPI."""
