"""Results shown to people: console tables, summary, figures, HTML."""
