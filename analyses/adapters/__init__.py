"""Other libraries' influence scores on a problem of ours, a file each: what `libraries.py` runs.

Every library gets the trained model in its own precision (single), the training examples and the
queries in our order, and the loss as its documentation asks for it. Scores come back as (queries,
train), positive where removing the training example raises the loss of the query.
"""
