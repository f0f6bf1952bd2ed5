"""HTTP routes: one function for each, which reads the request and answers."""
