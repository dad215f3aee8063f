"""The methods of the literature, one paper a file. A method knows pools, never hosts."""
