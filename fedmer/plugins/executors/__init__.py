"""Where the clients of a cohort are trained."""
