"""Token policies applied to stored documents."""
