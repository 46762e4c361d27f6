"""Runtime reference values: what files, keys and critical data a machine may measure with IMA."""
