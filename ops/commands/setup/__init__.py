"""The commands of a first day: `init` writes the files, `up` runs everything on a laptop."""
