"""What influence scores are held against: subsets, single removals, and the proximal response."""
