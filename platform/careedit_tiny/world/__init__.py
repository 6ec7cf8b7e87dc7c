"""The drawn world: scenes, edits with their exact truth, and the words for them."""
