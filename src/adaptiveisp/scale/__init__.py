"""Work for many processes and hosts: results in blocks of frames, and the engine that runs them on a Ray cluster."""
