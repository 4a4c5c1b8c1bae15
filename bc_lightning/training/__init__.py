"""How a step of the user's module is captured, held to h1 and counted."""
