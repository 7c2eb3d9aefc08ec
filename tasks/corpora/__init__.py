"""One file a corpus: a folder on disk -> Manifest."""
