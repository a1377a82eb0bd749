"""Shared by all rooms: errors, atomic files, tables, progress, checked YAML sections, downloads, signals, cores."""
