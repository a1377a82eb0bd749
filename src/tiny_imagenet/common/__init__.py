"""What every room uses: errors, atomic files, progress, checked YAML sections, downloads, cores."""
