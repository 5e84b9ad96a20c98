"""One loader for each kind of data source: published sets, image folders, tables, arrays."""
