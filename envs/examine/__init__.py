"""Looking at a world from outside: its exact solution, and the solution as a picture."""
