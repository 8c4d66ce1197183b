"""The local engine: DuckDB and threads of one machine."""
