"""Shows results in a notebook: tables, heat maps, data frames and progress bars."""
