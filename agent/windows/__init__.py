"""What only Windows answers. NOT RUN ON WINDOWS by this project's tests: see `docs/windows.md` for what stands in."""
