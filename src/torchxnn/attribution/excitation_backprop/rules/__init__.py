"""How relevance passes each operation: the table, and one module per kind of operation."""
