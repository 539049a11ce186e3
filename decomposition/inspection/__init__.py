"""Everything about the eigen-spectra of a problem or a result: tables, figures, files."""
