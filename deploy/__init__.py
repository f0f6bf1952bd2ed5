"""How evascore is started: everything on one machine, and what a deployment needs."""
