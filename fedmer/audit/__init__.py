"""What can be found out about clients, measured on a run that has ended."""
