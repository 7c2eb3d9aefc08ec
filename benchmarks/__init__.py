"""What Frostbench costs, beside what it could cost: every script prints ratios of two sides measured in one run."""
