"""HTTP routes: one function per route, which reads the request, calls and answers."""
