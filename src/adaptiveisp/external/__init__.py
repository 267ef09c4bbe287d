"""ISPs in other processes: programs that develop a DNG, started for each raw or kept running behind a pipe."""
