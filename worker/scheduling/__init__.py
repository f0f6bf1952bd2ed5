"""Chooses what is fetched and scored next, by budgets and turns of clients."""
