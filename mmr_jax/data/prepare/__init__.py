"""From media files to prepared data sets: `listing` says what there is, `manifest` reads a user's own list."""
