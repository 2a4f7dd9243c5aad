"""A trained model by itself: what a run leaves behind for those who only want to predict."""
