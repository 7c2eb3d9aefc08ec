"""Where jobs run and what a person sees of it: this machine, or a Ray cluster. Nothing here knows of speech."""
