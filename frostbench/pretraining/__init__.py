"""What joins the training of upstreams with corpora, jobs, and tasks that measure its progress."""
